"""Every job ends after a fault is repaired, whichever process was killed and whatever Redis lost."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis.connection
import sqlalchemy as sa
from celery.result import AsyncResult
from flask import Flask

from microblog.clock import elapsed, utcnow
from microblog.development.process_manager import ManagedProcess
from microblog.extensions import db
from microblog.taskqueue import reconcile
from microblog.taskqueue.models import Task
from microblog.taskqueue.reconcile import reconcile_all
from tests.support import not_none, servers, tasks
from tests.support.console import as_python_module
from tests.support.databases import Statement
from tests.support.factories import crash, make_older, rows_of, start, states_of, store_result_in_redis
from tests.support.servers import TIMEOUT, RedisServer, Worker, wait_for

pytestmark = pytest.mark.both_databases

FOREVER = "600"  # seconds, as a setting: longer than a test may take


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The commands that this thread sends to Redis during the test."""
    sent: list[Any] = []
    this_thread = threading.current_thread()
    send: Callable[..., None] = redis.connection.AbstractConnection.send_packed_command

    def record(connection: Any, command: Any, *rest: Any, **options: Any) -> None:
        if threading.current_thread() is this_thread:
            sent.append(command)
        send(connection, command, *rest, **options)

    monkeypatch.setattr(redis.connection.AbstractConnection, "send_packed_command", record)
    return sent


@pytest.mark.parametrize("waiting_jobs", [0, 3])
def test_reconcile_without_repair_costs_two_queries(
    app: Flask, commands: list[Any], statements: list[Statement], waiting_jobs: int
) -> None:
    reconcile_all()  # connects to Redis
    for _ in range(waiting_jobs):
        make_older(start(tasks.noop.s()), created_at=3600)
    statements.clear()
    commands.clear()

    assert reconcile_all() == 0

    assert (len(statements), len(commands)) == (2, 1)  # the time, and the rows


def test_connections_are_used_under_the_lock_against_fork(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child process forked while a library holds a lock would inherit it locked, and wait for it for ever."""
    task_id = start(tasks.noop.s())
    crash(app, task_id)
    make_older(task_id, published_at=10)
    locked: list[bool] = []
    send: Callable[..., None] = redis.connection.AbstractConnection.send_packed_command

    def record(*arguments: Any, **options: Any) -> None:
        locked.append(reconcile._fork_lock.locked())

    def record_and_send(*arguments: Any, **options: Any) -> None:
        record()
        send(*arguments, **options)

    monkeypatch.setattr(redis.connection.AbstractConnection, "send_packed_command", record_and_send)
    sa.event.listen(sa.Engine, "before_cursor_execute", record)
    try:
        assert reconcile.reconcile_in_turn("one@host") == 1
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", record)

    assert len(locked) > 5
    assert all(locked)


def test_unfinished_query_uses_index(app: Flask, database: str, statements: list[Statement]) -> None:
    if database == "postgresql":
        db.session.execute(sa.text("SET enable_seqscan = off"))
    reconcile_all()

    assert "task_unfinished" in statements[-1].plan()


def test_failed_reconcile_does_not_block_other_jobs(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    broken, intact = start(tasks.noop.s()), start(tasks.noop.s())
    for task_id in (broken, intact):
        crash(app, task_id)
        make_older(task_id, published_at=60)
    make_older(broken, created_at=60)
    start_time, repaired = utcnow(), 0

    def has_result(task_id: str) -> bool:
        if task_id == broken:
            raise ValueError("something unexpected")
        return False

    monkeypatch.setattr(app.extensions["celery"].tasks["noop"], "has_result", has_result)

    with contextlib.suppress(ValueError):  # the error of the broken job
        repaired = reconcile_all()

    assert repaired == 1
    assert not_none(rows_of(intact)[0].published_at) >= start_time


@pytest.mark.both_databases(each_run=False)
def test_killed_worker_loses_no_task(
    app: Flask, make_worker: Callable[..., Worker], tmp_path: Path, runs_file: Path
) -> None:
    release_file = tmp_path / "release"
    doomed = make_worker(concurrency=1, TASK_LEASE="1")
    job_id = start(tasks.count.s(str(release_file)), tasks.record.s(str(runs_file)))
    wait_for(lambda: states_of(job_id)[0] == "PROGRESS")

    doomed.kill()
    release_file.touch()
    make_worker(TASK_LEASE=FOREVER)
    wait_for(lambda: (reconcile_all() and False) or "SUCCESS" in states_of(job_id), what="the job is taken over")
    wait_for(lambda: states_of(job_id) == ["SUCCESS", "SUCCESS"])

    assert [row.attempts for row in rows_of(job_id)] == [2, 1]
    assert runs_file.read_text() == "ran\n"


@pytest.mark.exhaustive
def test_stopping_worker_releases_tasks_in_time(
    app: Flask, make_worker: Callable[..., Worker], tmp_path: Path, runs_file: Path
) -> None:
    release_file = tmp_path / "release"
    stopping = make_worker(WORKER_STOP_TIMEOUT="0.5")
    job_id = start(tasks.count.s(str(release_file)), tasks.record.s(str(runs_file)))
    wait_for(lambda: states_of(job_id)[0] == "PROGRESS")

    stopping.process.terminate()
    wait_for(lambda: stopping.process.poll() is not None, what="the worker ends")
    release_file.touch()
    make_worker()

    wait_for(lambda: states_of(job_id) == ["SUCCESS", "SUCCESS"])
    assert [(row.attempts, row.crashes) for row in rows_of(job_id)] == [(2, 0), (1, 0)]
    assert runs_file.read_text() == "ran\n"


@pytest.mark.exhaustive
@pytest.mark.parametrize("database", ["sqlite"])
@pytest.mark.parametrize(
    "signals",
    [[signal.SIGTERM], [signal.SIGTERM, signal.SIGTERM], [signal.SIGQUIT]],
    ids=["SIGTERM", "twice", "SIGQUIT"],
)
def test_stop_of_process_group_is_no_crash(
    app: Flask, make_worker: Callable[..., Worker], tmp_path: Path, signals: list[signal.Signals]
) -> None:
    """As by systemd, Heroku or a shell, which send the signal to the worker and to its children."""
    release_file = tmp_path / "release"
    task_id = start(tasks.count.s(str(release_file)))
    for stop in range(app.config["TASK_MAX_CRASHES"]):
        stopping = make_worker(concurrency=1)
        wait_for(lambda: reconcile_all() * 0 or rows_of(task_id)[0].attempts == stop + 1)  # noqa: B023 - called at once
        for number in signals:
            stopping.send_signal(number)
        stopping.process.wait(TIMEOUT)

    release_file.touch()
    make_worker(concurrency=1)

    wait_for(lambda: reconcile_all() * 0 or states_of(task_id) == ["SUCCESS"])
    assert rows_of(task_id)[0].crashes == 0


@pytest.mark.exhaustive
def test_stopping_worker_finishes_short_task(app: Flask, make_worker: Callable[..., Worker], tmp_path: Path) -> None:
    release_file = tmp_path / "release"
    stopping = make_worker(WORKER_STOP_TIMEOUT=FOREVER)
    task_id = start(tasks.count.s(str(release_file)))
    wait_for(lambda: states_of(task_id)[0] == "PROGRESS")

    stopping.process.terminate()
    release_file.touch()
    stopping.process.wait(TIMEOUT)

    assert states_of(task_id) == ["SUCCESS"]
    assert rows_of(task_id)[0].attempts == 1


class Interpreter(ManagedProcess):
    """Like ScriptProcess, but in a new interpreter: a forked process has the hash seed of its parent."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], *, stdout: Path) -> None:
        super().__init__(as_python_module(command), environment, stdout=stdout)


@pytest.mark.parametrize("database", ["sqlite"])
@pytest.mark.parametrize("hash_seed", ["1", "3"])  # decides the order in which a worker stops its components
@pytest.mark.exhaustive
def test_stopping_worker_renews_running_leases(
    app: Flask, make_worker: Callable[..., Worker], tmp_path: Path, hash_seed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "ScriptProcess", Interpreter)
    release_file = tmp_path / "release"
    stopping = make_worker(TASK_LEASE="1", WORKER_STOP_TIMEOUT=FOREVER, PYTHONHASHSEED=hash_seed)
    task_id = start(tasks.wait_for_file.s(str(release_file)))
    wait_for(lambda: states_of(task_id) == ["STARTED"])

    stopping.process.terminate()
    stopped_at = utcnow()
    wait_for(lambda: (rows_of(task_id)[0].lease_expires_at or stopped_at) > stopped_at + timedelta(seconds=3))
    release_file.touch()
    stopping.process.wait(TIMEOUT)

    assert [(row.state, row.attempts) for row in rows_of(task_id)] == [("SUCCESS", 1)]


@pytest.mark.exhaustive
def test_frozen_worker_is_fenced_after_takeover(
    app: Flask, make_worker: Callable[..., Worker], tmp_path: Path, runs_file: Path
) -> None:
    release_file = tmp_path / "release"
    worker = make_worker(concurrency=1, TASK_LEASE="1")
    job_id = start(tasks.count.s(str(release_file)), tasks.record.s(str(runs_file)))
    wait_for(lambda: states_of(job_id)[0] == "PROGRESS")

    with worker.frozen():
        other = make_worker(TASK_LEASE=FOREVER)
        wait_for(lambda: reconcile_all() or rows_of(job_id)[0].worker == other.name, what="the task is taken over")
        wait_for(lambda: rows_of(job_id)[0].worker == other.name)
    wait_for(lambda: "was taken over" in worker.text() or "ignored" in worker.text(), what="the takeover is detected")
    assert states_of(job_id)[0] in ("STARTED", "PROGRESS")
    release_file.touch()
    wait_for(lambda: states_of(job_id) == ["SUCCESS", "SUCCESS"])

    assert rows_of(job_id)[0].worker == other.name
    assert runs_file.read_text() == "ran\n"


@pytest.mark.exhaustive
def test_lease_is_renewed_without_progress(app: Flask, make_worker: Callable[..., Worker], tmp_path: Path) -> None:
    release_file = tmp_path / "release"
    make_worker(TASK_LEASE="8")  # renewed every two seconds: only a worker that hangs for several seconds loses it
    task_id = start(tasks.wait_for_file.s(str(release_file)))
    wait_for(lambda: states_of(task_id) == ["STARTED"])
    leases = {rows_of(task_id)[0].lease_expires_at}

    while len(leases) < 3:
        assert reconcile_all() == 0
        leases.add(rows_of(task_id)[0].lease_expires_at)
        time.sleep(0.02)
    release_file.touch()

    wait_for(lambda: states_of(task_id) == ["SUCCESS"])
    assert rows_of(task_id)[0].attempts == 1


def test_reconcile_copies_result_from_redis(app: Flask) -> None:
    first, second = start(tasks.add.s(1, 2), tasks.noop.s()), start(tasks.fail.s())
    for task_id in (first, second):
        crash(app, task_id)
    failure = {"exc_type": "RuntimeError", "exc_message": ["x"], "exc_module": "builtins"}
    store_result_in_redis(app, first, "SUCCESS", 3)
    store_result_in_redis(app, second, "FAILURE", failure, "Traceback: x")

    reconcile_all()

    assert states_of(first)[0] == "SUCCESS"
    assert rows_of(first)[0].result == {"result": 3}
    assert states_of(second) == ["FAILURE"]
    assert rows_of(second)[0].traceback == "Traceback: x"


@pytest.mark.both_databases(each_run=False)
def test_republished_step_receives_previous_result(
    app: Flask, make_worker: Callable[..., Worker], runs_file: Path
) -> None:
    job_id = start(tasks.add.s(1, 2), tasks.record.s(str(runs_file)))
    crash(app, job_id)
    store_result_in_redis(app, job_id, "SUCCESS", 3)
    reconcile_all()
    db.session.execute(sa.update(Task).where(Task.id == job_id).values(finished_at=utcnow() - timedelta(seconds=30)))
    db.session.commit()

    make_worker()
    reconcile_all()

    wait_for(lambda: states_of(job_id) == ["SUCCESS", "SUCCESS"])
    assert rows_of(job_id)[1].result == {"received": [3]}


@pytest.mark.both_databases(each_run=False)
@pytest.mark.exhaustive
def test_stored_result_is_reused_after_crash(app: Flask, make_worker: Callable[..., Worker], runs_file: Path) -> None:
    task_id = start(tasks.record.s(str(runs_file)))
    crash(app, task_id)
    store_result_in_redis(app, task_id, "SUCCESS", {"received": []})

    make_worker()

    wait_for(lambda: states_of(task_id) == ["SUCCESS"])
    assert not runs_file.exists()


@pytest.mark.parametrize("ended", ["FAILURE", "REVOKED"])
def test_step_ends_with_failed_predecessor(app: Flask, ended: str) -> None:
    job_id = start(tasks.add.s(1, 2), tasks.noop.s())
    db.session.execute(sa.update(Task).where(Task.id == job_id).values(state=ended, error="why", finished_at=utcnow()))
    db.session.commit()

    reconcile_all()

    assert states_of(job_id) == [ended, ended]
    assert AsyncResult(rows_of(job_id)[1].id).state == ended


def test_reconcile_cancels_task_of_lost_worker(app: Flask) -> None:
    job_id = start(tasks.add.s(1, 2), tasks.noop.s())
    crash(app, job_id)
    db.session.execute(sa.update(Task).values(cancel_requested_at=utcnow()))
    db.session.commit()

    reconcile_all()

    assert states_of(job_id) == ["REVOKED", "REVOKED"]


def test_task_fails_after_too_many_crashes(app: Flask) -> None:
    job_id = start(tasks.add.s(1, 2), tasks.noop.s())
    for _ in range(3):
        crash(app, job_id)

    reconcile_all()

    assert states_of(job_id) == ["FAILURE", "FAILURE"]
    assert "died, again and again" in (rows_of(job_id)[0].error or "")


@pytest.mark.both_databases(each_run=False)
def test_next_step_waits_for_committed_success(
    app: Flask, make_worker: Callable[..., Worker], redis_server: RedisServer, tmp_path: Path, runs_file: Path
) -> None:
    release_file = tmp_path / "release"
    make_worker(concurrency=1)  # leaves the next message in the queue
    job_id = start(tasks.wait_for_file.s(str(release_file)), tasks.record.s(str(runs_file)))
    wait_for(lambda: states_of(job_id) == ["STARTED", "PENDING"])
    db.session.execute(
        sa.update(Task).values(message="locked")
    )  # locks the row: no success is stored until the rollback

    release_file.touch()
    wait_for(lambda: AsyncResult(job_id).state == "SUCCESS", what="the success is in Redis")
    assert redis_server.waiting("default") == 0

    db.session.rollback()
    wait_for(lambda: states_of(job_id) == ["SUCCESS", "SUCCESS"])
    first, second = rows_of(job_id)
    assert not_none(first.finished_at) < not_none(second.published_at) < not_none(second.started_at)


def test_unknown_task_fails_after_one_hour(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the process that does not have it: the task may have been removed by a deployment in progress."""
    task_id = start(tasks.noop.s())
    db.session.execute(sa.update(Task).values(name="from_a_release_to_come"))
    make_older(task_id, created_at=60)
    reconcile_all()
    assert states_of(task_id) == ["PENDING"]

    make_older(task_id, created_at=3601)
    reconcile_all()
    assert states_of(task_id) == ["PENDING"]

    monkeypatch.setattr("microblog.taskqueue.reconcile.STARTED_AT", elapsed() - 3601)
    reconcile_all()

    assert [(row.state, row.error) for row in rows_of(task_id)] == [("FAILURE", "This kind of job no longer exists.")]
