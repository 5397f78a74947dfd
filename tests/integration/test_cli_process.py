"""``flask tasks`` as a separate process: its output for a shell, a script and a terminal."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from flask import Flask

from microblog.accounts.models import User
from microblog.extensions import db
from microblog.taskqueue import states
from microblog.taskqueue.models import Task
from tests.support import programs
from tests.support.console import flask_tasks, run_in_terminal
from tests.support.factories import make_job, start_job_for

UNREACHABLE_REDIS = "redis://127.0.0.1:1/0"
ESCAPE = "\x1b[31mred\x1b[0m"

pytestmark = pytest.mark.parametrize("database", ["sqlite"])

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def command(environment: dict[str, str]) -> Command:
    def command(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        return programs.run(flask_tasks(*arguments), environment | settings)

    return command


def test_stdout_has_only_json(app: Flask, command: Command, susan: User) -> None:
    job = start_job_for(susan)

    cancelled = command("cancel", job, "--json", LOG_LEVEL="DEBUG")

    assert cancelled.returncode == 0
    assert json.loads(cancelled.stdout)[0]["state"] == states.REVOKED


def test_unavailable_database_is_reported(command: Command, tmp_path: Path) -> None:
    result = command("list", "--json", DATABASE_URL=f"sqlite:///{tmp_path}/no/such/folder/x.db")

    assert (result.returncode, result.stdout) == (3, "")
    assert "The database is unavailable" in result.stderr
    assert "Traceback" not in result.stderr


def test_list_needs_no_redis(app: Flask, command: Command, susan: User) -> None:
    job = make_job(susan, "SUCCESS")

    result = command("list", "--json", REDIS_URL=UNREACHABLE_REDIS)

    assert [each["id"] for each in json.loads(result.stdout)] == [job]


def test_help_has_an_example(command: Command) -> None:
    for name in ("list", "show", "cancel", "retry"):
        result = command(name, "--help")

        assert result.returncode == 0
        assert f"flask tasks {name} " in result.stdout.partition("Example")[2]


def test_terminal_output_is_a_table(app: Flask, environment: dict[str, str], susan: User) -> None:
    job = make_job(susan, "FAILURE")

    text = run_in_terminal(flask_tasks("list"), environment)

    assert job in text
    assert "─" in text
    assert "\x1b[31mFAILURE" in text


def test_escape_sequences_are_not_printed(app: Flask, environment: dict[str, str], susan: User) -> None:
    job = make_job(susan, "FAILURE", error=ESCAPE, description=ESCAPE, message=ESCAPE, traceback=f"{ESCAPE}\n  below")
    db.session.execute(sa.update(Task).values(name=ESCAPE))
    db.session.commit()

    text = run_in_terminal(flask_tasks("show", job), environment) + run_in_terminal(flask_tasks("list"), environment)

    assert ESCAPE not in text
    assert "red" in text
    assert re.search(r"^    .*red.*\r\n      below", text, re.M), "the lines of a traceback stay separate"
