"""A program that cannot work with its settings or its database ends at its start, with a sentence."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
import sqlalchemy as sa
from flask import Flask

from microblog.database import check_schema
from microblog.extensions import db
from tests.support import tasks
from tests.support.factories import start, state_of
from tests.support.programs import ROOT, run
from tests.support.servers import TIMEOUT, Postgres, Worker, free_port, wait_for

CELERY = ("celery", "-A", "tests.support.worker_app")
OLDER = "The schema of the database is older than this release: it has 0001_jobs, and 0002_retry_signature is needed."


ON_SQLITE = pytest.mark.parametrize("database", ["sqlite"])  # restored after a change of the revision


def set_revision(name: str) -> None:
    db.session.execute(sa.text("UPDATE alembic_version SET version_num = :name"), {"name": name})
    db.session.commit()


def run_gunicorn(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "microblog:create_app()"]
    environment = environment | {"PORT": str(free_port())}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=TIMEOUT)


@ON_SQLITE
@pytest.mark.parametrize("program", ["worker", "beat"])
@pytest.mark.exhaustive
def test_worker_and_beat_refuse_older_schema(app: Flask, environment: dict[str, str], program: str) -> None:
    set_revision("0001_jobs")

    result = run([*CELERY, program], environment)

    assert result.returncode == 1
    assert OLDER in result.stderr
    assert "flask db upgrade" in result.stderr


@ON_SQLITE
@pytest.mark.exhaustive
def test_web_server_refuses_older_schema(app: Flask, environment: dict[str, str]) -> None:
    set_revision("0001_jobs")

    result = run_gunicorn(environment)

    assert result.returncode == 3
    assert OLDER in result.stderr


@pytest.mark.exhaustive
def test_web_server_refuses_invalid_setting(environment: dict[str, str]) -> None:
    result = run_gunicorn(environment | {"REDIS_TIMEOUT": "soon"})

    assert result.returncode == 3
    assert result.stderr.count("REDIS_TIMEOUT: ") == 1


@ON_SQLITE
@pytest.mark.exhaustive
def test_worker_runs_with_newer_schema(app: Flask, make_worker: Callable[..., Worker]) -> None:
    set_revision("9999_later")
    task_id = start(tasks.noop.s())

    worker = make_worker()

    wait_for(lambda: state_of(task_id) == "SUCCESS")
    assert "the schema of the database is newer than this release: it has 9999_later" in worker.text()


@pytest.mark.both_databases
def test_current_schema_is_accepted(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    check_schema(app)

    assert caplog.messages == []


@ON_SQLITE
def test_database_without_schema_is_refused(app: Flask) -> None:
    db.session.execute(sa.text("DELETE FROM alembic_version"))
    db.session.commit()

    with pytest.raises(SystemExit, match="it has no revision"):
        check_schema(app)


@pytest.mark.parametrize("database", ["postgresql"])
def test_unavailable_database_is_not_checked(
    app: Flask, postgres_server: Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    db.session.rollback()
    with postgres_server.closed(str(db.engine.url.database)):
        check_schema(app)

    assert "its schema is not checked" in caplog.text
