"""A task that runs while Redis or the database becomes unavailable ends with the same result, only later."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from celery.app.task import Context
from celery.result import AsyncResult
from celery.signals import task_internal_error
from flask import Flask

from microblog.clock import utcnow
from microblog.database import DatabaseUnavailable, LogDatabaseErrors
from microblog.extensions import db
from microblog.taskqueue.errors import NotClaimed
from microblog.taskqueue.launch import launch
from microblog.taskqueue.reconcile import reconcile_all
from microblog.taskqueue.transitions import claim_task
from microblog.taskqueue.worker import JobTask
from tests.support import tasks
from tests.support.factories import crash, make_older, rows_of, start, states_of
from tests.support.servers import Postgres, RedisServer, Worker, wait_for

Outage = Callable[[], contextlib.AbstractContextManager[None]]

# SQLite is a file and is always available.
ONLY_POSTGRESQL = pytest.mark.parametrize("database", ["postgresql"])


@pytest.fixture
def database_outage(app: Flask, postgres_server: Postgres) -> Outage:
    @contextlib.contextmanager
    def outage() -> Iterator[None]:
        db.session.rollback()
        with postgres_server.closed(str(db.engine.url.database)):
            yield

    return outage


def in_broker(redis_server: RedisServer) -> str:
    """Return the queued messages and those that a worker has not acknowledged, as text."""
    client = redis_server.client
    return f"{redis_server.messages('default')} {client.hvals(client.key('unacked'))}"


@pytest.mark.both_databases
def test_second_attempt_starts_while_redis_is_unavailable(app: Flask, redis_server: RedisServer) -> None:
    task_id = start(tasks.noop.s())
    crash(app, task_id)
    noop = app.extensions["celery"].tasks["noop"]
    noop.push_request(id=task_id, hostname="two@host")

    with redis_server.stopped():
        noop.before_start(task_id, (), {})

    assert [(row.state, row.worker, row.attempts) for row in rows_of(task_id)] == [("STARTED", "two@host", 2)]
    noop.pop_request()


@pytest.mark.both_databases(each_run=False)
@pytest.mark.exhaustive
def test_schema_error_at_claim_drops_message_and_loses_no_job(
    app: Flask, make_worker: Callable[..., Worker], redis_server: RedisServer, runs_file: Path
) -> None:
    task_id = start(tasks.record.s(str(runs_file)))
    rename_column("crashes")

    worker = make_worker()
    wait_for(lambda: f"{task_id} cannot be claimed" in worker.text(), what="the claim is rejected")
    wait_for(lambda: not redis_server.unacknowledged(), what="the message is acknowledged")
    rename_column("crashes", back=True)

    assert states_of(task_id) == ["PENDING"]
    assert not app.extensions["celery"].backend.has_result(task_id)
    make_older(task_id, published_at=30)
    assert reconcile_all() == 1
    wait_for(lambda: states_of(task_id) == ["SUCCESS"])


@pytest.mark.both_databases
def test_schema_error_at_claim_is_reported(app: Flask) -> None:
    task_id = start(tasks.noop.s())
    noop = app.extensions["celery"].tasks["noop"]
    noop.push_request(id=task_id, hostname="one@host")
    reported: list[str] = []

    def report(sender: JobTask, task_id: str, **_: Any) -> None:
        reported.append(task_id)

    rename_column("crashes")
    with pytest.raises(NotClaimed), connected(task_internal_error, report):
        noop.before_start(task_id, (), {})

    rename_column("crashes", back=True)
    assert reported == [task_id]
    noop.pop_request()


@pytest.mark.both_databases
def test_schema_error_after_commit_leaves_launched_job(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    rename_column("published_at")
    row = launch(tasks.noop.s())
    task_id = row.id
    db.session.commit()

    rename_column("published_at", back=True)
    assert errors_in(caplog) == [f"the database rejects a statement; {task_id} will be published later"]
    assert [(row.state, row.published_at) for row in rows_of(task_id)] == [("PENDING", None)]


@pytest.mark.both_databases
def test_schema_error_at_progress_does_not_fail_task(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    task_id = start(tasks.noop.s())
    celery = app.extensions["celery"]
    held = claim_task(celery.executor, task_id, "one@host", lease=30, max_crashes=3)
    request = Context({"id": task_id, "hostname": "one@host", "delivery_info": {}})
    request.claim = held
    rename_column("message")

    error: Exception | None = None
    try:
        celery.backend.store_result(task_id, {"current": 1, "total": 2, "percent": 50}, "PROGRESS", request=request)
    except sa.exc.SQLAlchemyError as raised:
        error = raised

    assert error is None
    rename_column("message", back=True)
    assert states_of(task_id) == ["STARTED"]
    assert errors_in(caplog) == [f"the database rejects a statement; progress of {task_id} is not in its row"]


@pytest.mark.both_databases
def test_schema_error_at_result_is_reported_and_result_stored_in_redis(
    app: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    task_id = start(tasks.noop.s())
    rename_column("worker")

    app.extensions["celery"].backend.store_result(task_id, OSError("broken"), "FAILURE")

    rename_column("worker", back=True)
    assert states_of(task_id) == ["PENDING"]
    assert AsyncResult(task_id).state == "FAILURE"
    unchecked, partly_stored = errors_in(caplog)
    assert unchecked.endswith(f"FAILURE of {task_id} is stored in Redis without a check of its row")
    assert partly_stored.endswith(f"FAILURE of {task_id} is stored only in part; reconcile does the rest")


@pytest.mark.both_databases(each_run=False)
def test_schema_error_at_recovery_is_reported_and_task_runs(
    app: Flask, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    task_id = start(tasks.noop.s())
    crash(app, task_id)
    noop = app.extensions["celery"].tasks["noop"]
    monkeypatch.setattr(noop, "find_completed_result", lambda _: db.session.scalar(sa.text("SELECT gone FROM task")))
    noop.push_request(id=task_id, hostname="two@host")

    noop.before_start(task_id, (), {})

    assert [(row.state, row.attempts) for row in rows_of(task_id)] == [("STARTED", 2)]
    assert errors_in(caplog) == [f"the database rejects a statement; no earlier result of {task_id} is recovered"]
    noop.pop_request()


@pytest.mark.parametrize(("error", "level"), [(DatabaseUnavailable, "WARNING"), (sa.exc.OperationalError, "ERROR")])
def test_only_outage_is_logged_as_warning(
    error: type[sa.exc.OperationalError], level: str, caplog: pytest.LogCaptureFixture
) -> None:
    with LogDatabaseErrors(logging.getLogger("test"), "%d is kept", 3):
        raise error("SELECT 1", {}, OSError("gone"))

    [record] = caplog.records
    assert record.levelname == level
    assert record.getMessage().endswith("; 3 is kept")
    assert (record.exc_info is not None) is (level == "ERROR")


def test_other_errors_are_raised(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ValueError, match="other"), LogDatabaseErrors(logging.getLogger("test"), "nothing happens"):
        raise ValueError("other")

    assert caplog.records == []


def errors_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the messages that were logged as errors."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


def rename_column(name: str, *, back: bool = False) -> None:
    """Rename a column of the task table, so that statements that use it fail; or undo that."""
    old, new = (f"{name}_renamed", name) if back else (name, f"{name}_renamed")
    db.session.rollback()
    db.session.execute(sa.text(f"ALTER TABLE task RENAME COLUMN {old} TO {new}"))
    db.session.commit()


@contextlib.contextmanager
def connected(signal: Any, receiver: Callable[..., None]) -> Iterator[None]:
    signal.connect(receiver)
    try:
        yield
    finally:
        signal.disconnect(receiver)


@pytest.mark.exhaustive
def test_next_step_runs_once_redis_is_back(
    app: Flask, make_worker: Callable[..., Worker], redis_server: RedisServer, release_file: Path, runs_file: Path
) -> None:
    worker = make_worker()
    job_id = start(tasks.count.s(str(release_file)), tasks.record.s(str(runs_file)))
    wait_for(lambda: states_of(job_id)[0] == "PROGRESS")

    with redis_server.stopped():
        release_file.touch()
        wait_for(lambda: "Failed operation" in worker.text(), what="the success cannot be stored")
        assert states_of(job_id) == ["PROGRESS", "PENDING"]

    wait_for(lambda: states_of(job_id) == ["SUCCESS", "SUCCESS"])
    assert runs_file.read_text() == "ran\n"


@pytest.mark.both_databases
@pytest.mark.exhaustive
def test_retry_is_published_once_redis_is_back(
    app: Flask, make_worker: Callable[..., Worker], redis_server: RedisServer, release_file: Path
) -> None:
    worker = make_worker()
    task_id = start(tasks.retry_behind.s(str(release_file)))
    wait_for(lambda: states_of(task_id) == ["STARTED"])

    with redis_server.stopped():
        release_file.touch()
        wait_for(lambda: f"{task_id} will be published later" in worker.text(), what="the retry is not published")
    wait_for(lambda: rows_of(task_id)[0].published_at is None)
    make_older(task_id, eta=30)
    assert reconcile_all() == 1

    wait_for(lambda: states_of(task_id) == ["SUCCESS"])
    assert [(row.attempts, row.crashes) for row in rows_of(task_id)] == [(2, 0)]


@ONLY_POSTGRESQL
@pytest.mark.exhaustive
def test_message_is_requeued_while_database_is_unavailable(
    app: Flask,
    make_worker: Callable[..., Worker],
    redis_server: RedisServer,
    database_outage: Outage,
    runs_file: Path,
) -> None:
    task_id = start(tasks.record.s(str(runs_file)))

    with database_outage():
        make_worker()
        wait_for(lambda: "redelivered" in in_broker(redis_server), what="the message is requeued")

    wait_for(lambda: states_of(task_id) == ["SUCCESS"])
    assert [(row.attempts, row.crashes) for row in rows_of(task_id)] == [(1, 0)]
    assert runs_file.read_text() == "ran\n"


@contextlib.contextmanager
def locked(server: Postgres, path: str) -> Iterator[None]:
    """Hold the write lock of a SQLite database during the block."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("refusal", "database"), [(Postgres.closed, "postgresql"), (Postgres.read_only, "postgresql"), (locked, "sqlite")]
)
def test_lease_that_expired_during_outage_is_no_crash(
    app: Flask,
    make_worker: Callable[..., Worker],
    postgres_server: Postgres,
    refusal: Callable[[Postgres, str], contextlib.AbstractContextManager[None]],
    release_file: Path,
) -> None:
    settings = {"TASK_LEASE": "8", "RECONCILE_INTERVAL": "0.2", "DATABASE_STATEMENT_TIMEOUT": "1"}
    for _ in range(2):
        make_worker(concurrency=1, **settings)
    task_id = start(tasks.wait_for_file.s(str(release_file)))
    wait_for(lambda: states_of(task_id) == ["STARTED"])

    db.session.rollback()
    with refusal(postgres_server, str(db.engine.url.database)):
        refused_at = utcnow()
        wait_for(lambda: utcnow() - refused_at > timedelta(seconds=9), what="the lease expires")
    wait_for(lambda: rows_of(task_id)[0].lease_expires_at > utcnow(), what="the lease is renewed")  # type: ignore[operator]
    release_file.touch()

    wait_for(lambda: states_of(task_id) == ["SUCCESS"])
    assert [(row.attempts, row.crashes) for row in rows_of(task_id)] == [(1, 0)]


@ONLY_POSTGRESQL
@pytest.mark.exhaustive
def test_result_reaches_row_once_database_is_back(
    app: Flask, make_worker: Callable[..., Worker], database_outage: Outage, release_file: Path
) -> None:
    worker = make_worker(TASK_LEASE="2")
    task_id = start(tasks.wait_for_file.s(str(release_file)))
    wait_for(lambda: states_of(task_id) == ["STARTED"])

    with database_outage():
        release_file.touch()
        wait_for(lambda: "SUCCESS of" in worker.text(), what="the row cannot be written")
        assert AsyncResult(task_id).state == "SUCCESS"

    wait_for(lambda: (reconcile_all() and False) or states_of(task_id) == ["SUCCESS"])
    assert [(row.attempts, row.result) for row in rows_of(task_id)] == [(1, {"result": "through"})]
