"""Shell completion of ``flask tasks``: current ids and names within a deadline, and nothing on failure."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from threading import Event

import click
import pytest
from click.shell_completion import CompletionItem
from flask import Flask
from flask.cli import ScriptInfo

from microblog.accounts.models import User
from microblog.monitoring.cli import completion
from microblog.taskqueue import states
from tests.support import programs
from tests.support.factories import add_task

IDS = {state: f"{number}0b8e2f4-6a1d-4f7e-9c35-2d8a7e1b4f60" for number, state in enumerate(states.ALL, 1)}

# The application with a longer deadline for completions, because the machine may be busy.
APP_SOURCE = """
from microblog import create_app
from microblog.monitoring.cli import completion

completion.DEADLINE = 60.0
"""
TOO_LONG = 30.0  # seconds: many times the usual duration; a completion that hangs takes longer

Complete = Callable[..., list[str]]


@pytest.fixture
def complete(environment: dict[str, str], tmp_path: Path) -> Complete:
    """Return a function that completes the last of the given words as bash does, without other output."""
    application = tmp_path / "patient.py"
    application.write_text(APP_SOURCE)

    def complete(*words: str, **settings: str) -> list[str]:
        line = ["flask", "tasks", *words]
        shell = {"_FLASK_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(line), "COMP_CWORD": str(len(line) - 1)}
        variables = environment | settings | shell | {"FLASK_APP": f"{application}:create_app"}
        done = programs.run(["flask"], variables)
        assert (done.returncode, done.stderr) == (0, "")
        return [line.partition(",")[2] for line in done.stdout.splitlines() if line]

    return complete


@pytest.fixture
def jobs(app: Flask) -> None:
    for state, job_id in IDS.items():
        worker = "one@house" if state == states.SUCCESS else "two@house"
        add_task(job_id, state, name="export_posts", queue="exports", worker=worker)


def test_only_applicable_ids_are_completed(complete: Complete, jobs: None) -> None:
    assert set(complete("show", "")) == set(IDS.values())
    assert set(complete("cancel", "")) == {IDS[state] for state in states.UNFINISHED}
    assert set(complete("retry", "")) == {IDS[states.FAILURE], IDS[states.REVOKED]}
    assert complete("show", IDS[states.RETRY][:5]) == [IDS[states.RETRY]]
    assert complete("cancel", IDS[states.SUCCESS][:5]) == []
    assert complete("show", "x%") == []


@pytest.mark.parametrize("database", ["sqlite"])
def test_option_values_are_completed(complete: Complete, jobs: None, make_user: Callable[..., User]) -> None:
    for name in ("susan", "Sunny", "david"):
        make_user(name)

    assert complete("list", "--user", "su") == ["Sunny", "susan"]
    assert complete("list", "--name", "email_ex") == ["email_export"]
    assert complete("list", "--state", "f") == ["FAILURE"]
    assert complete("list", "--worker", "") == ["one@house", "two@house"]
    assert complete("cancel", "--queue", "ex") == ["exports"]


@pytest.mark.parametrize("database", ["sqlite"])
@pytest.mark.exhaustive
def test_no_completions_while_servers_are_unavailable(complete: Complete, tmp_path: Path) -> None:
    unavailable = {"DATABASE_URL": f"sqlite:///{tmp_path}/no/such/folder/x.db", "REDIS_URL": "redis://127.0.0.1:1/0"}

    for words in (["show", ""], ["list", "--user", "s"], ["list", "--worker", ""], ["worker", ""]):
        assert complete(*words, **unavailable) == []


@pytest.mark.parametrize("database", ["sqlite"])
def test_hanging_completion_is_abandoned(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(completion, "DEADLINE", 0.1)
    over = Event()

    def hang(_typed: str) -> Iterable[CompletionItem]:
        over.wait()
        return []

    complete_slowly = completion._completer(hang)
    context = click.Context(click.Command("show"), obj=ScriptInfo(create_app=lambda: app))
    try:
        began = time.monotonic()
        completions = complete_slowly(context, click.Argument(["task_id"]), "")
        took = time.monotonic() - began
    finally:
        over.set()

    assert completions == []
    assert took < TOO_LONG
