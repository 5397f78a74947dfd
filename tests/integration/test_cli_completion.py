"""What the shell offers for ``flask tasks``: ids and names as they are now, quickly; and nothing where that fails."""

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

from microblog.clock import utcnow
from microblog.extensions import db
from microblog.monitoring.cli import completion
from microblog.taskqueue import states
from microblog.taskqueue.models import Task
from tests.support import programs

IDS = {state: f"{number}0b8e2f4-6a1d-4f7e-9c35-2d8a7e1b4f60" for number, state in enumerate(states.ALL, 1)}

# The application as it is, but for how long a completion may take: the machine may be busy.
PATIENT = """
from microblog import create_app
from microblog.monitoring.cli import completion

completion.DEADLINE = 60.0
"""
TOO_LONG = 30.0  # seconds: many times what it takes, and far less than what is not waited for

Offered = Callable[..., list[str]]


@pytest.fixture
def offered(environment: dict[str, str], tmp_path: Path) -> Offered:
    """What bash is offered behind these words, the last of which is not finished; and nothing may be said besides."""
    application = tmp_path / "patient.py"
    application.write_text(PATIENT)

    def offered(*words: str, **settings: str) -> list[str]:
        line = ["flask", "tasks", *words]
        asked = {"_FLASK_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(line), "COMP_CWORD": str(len(line) - 1)}
        variables = environment | settings | asked | {"FLASK_APP": f"{application}:create_app"}
        done = programs.run(["flask"], variables)
        assert (done.returncode, done.stderr) == (0, "")
        return [line.partition(",")[2] for line in done.stdout.splitlines() if line]

    return offered


@pytest.fixture
def jobs(app: Flask) -> None:
    for state, job_id in IDS.items():
        db.session.add(
            Task(
                id=job_id,
                root_id=job_id,
                name="export_posts",
                queue="exports",
                worker="one@house" if state == states.SUCCESS else "two@house",
                state=state,
                signature={},
                finished_at=utcnow() if state in states.FINISHED else None,
            )
        )
    db.session.commit()


def test_ids_are_those_for_which_the_command_can_do_something(offered: Offered, jobs: None) -> None:
    assert set(offered("show", "")) == set(IDS.values())
    assert set(offered("cancel", "")) == {IDS[state] for state in states.UNFINISHED}
    assert set(offered("retry", "")) == {IDS[states.FAILURE], IDS[states.REVOKED]}
    assert offered("show", IDS[states.RETRY][:5]) == [IDS[states.RETRY]]
    assert offered("cancel", IDS[states.SUCCESS][:5]) == []
    assert offered("show", "x%") == []


@pytest.mark.parametrize("database", ["sqlite"])
def test_names_of_users_tasks_states_workers_and_queues_are_offered(offered: Offered, jobs: None, make_user) -> None:
    for name in ("susan", "Sunny", "david"):
        make_user(name)

    assert offered("list", "--user", "su") == ["Sunny", "susan"]
    assert offered("list", "--name", "email_ex") == ["email_export"]
    assert offered("list", "--state", "f") == ["FAILURE"]
    assert offered("list", "--worker", "") == ["one@house", "two@house"]
    assert offered("cancel", "--queue", "ex") == ["exports"]


@pytest.mark.parametrize("database", ["sqlite"])
@pytest.mark.exhaustive
def test_a_database_or_a_redis_that_is_away_is_no_word_on_the_line(offered: Offered, tmp_path: Path) -> None:
    away = {"DATABASE_URL": f"sqlite:///{tmp_path}/no/such/folder/x.db", "REDIS_URL": "redis://127.0.0.1:1/0"}

    for words in (["show", ""], ["list", "--user", "s"], ["list", "--worker", ""], ["worker", ""]):
        assert offered(*words, **away) == []


@pytest.mark.parametrize("database", ["sqlite"])
def test_one_that_hangs_is_not_waited_for(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(completion, "DEADLINE", 0.1)
    over = Event()

    def hang(_typed: str) -> Iterable[CompletionItem]:
        over.wait()
        return []

    complete_slowly = completion._completer(hang)
    context = click.Context(click.Command("show"), obj=ScriptInfo(create_app=lambda: app))
    try:
        began = time.monotonic()
        offered = complete_slowly(context, click.Argument(["task_id"]), "")
        took = time.monotonic() - began
    finally:
        over.set()

    assert offered == []
    assert took < TOO_LONG
