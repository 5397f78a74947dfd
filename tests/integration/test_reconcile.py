"""After a fault is healed every job ends, whoever was killed and whatever was forgotten."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis.connection
import sqlalchemy as sa
from celery.result import AsyncResult
from flask import Flask

from microblog.clock import utcnow
from microblog.extensions import db
from microblog.taskqueue.models import Task
from microblog.taskqueue.reconcile import reconcile_all
from tests.support import servers, tasks
from tests.support.console import from_nothing
from tests.support.factories import crash, make_older, rows_of, start, states_of, store_outcome
from tests.support.programs import ROOT
from tests.support.servers import PATIENCE, RedisServer, Worker, wait_for

pytestmark = pytest.mark.both_databases

FOREVER = "600"  # seconds, as a setting: longer than a test may take


@pytest.fixture
def diary(tmp_path: Path) -> Path:
    return tmp_path / "diary"


@pytest.fixture
def statements(app: Flask) -> Iterator[list[str]]:
    """The SQL that the test's process sends."""
    sent: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        sent.append(statement)

    sa.event.listen(db.engine, "before_cursor_execute", note)
    yield sent
    sa.event.remove(db.engine, "before_cursor_execute", note)


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What this thread sends to any Redis."""
    sent: list[Any] = []
    us, send = threading.current_thread(), redis.connection.AbstractConnection.send_packed_command

    def note(connection: Any, command: Any, *rest: Any, **options: Any) -> None:
        if threading.current_thread() is us:
            sent.append(command)
        send(connection, command, *rest, **options)

    monkeypatch.setattr(redis.connection.AbstractConnection, "send_packed_command", note)
    return sent


def test_nothing_to_do_costs_one_query_and_no_word_with_redis(
    app: Flask, commands: list[Any], statements: list[str]
) -> None:
    assert reconcile_all() == 0

    assert (len(statements), commands) == (1, [])

    start(tasks.noop.s())
    assert commands, "what is sent is noted"


def test_the_query_for_unfinished_rows_uses_an_index_of_them(app: Flask, database: str, statements: list[str]) -> None:
    if database == "postgresql":
        db.session.execute(sa.text("SET enable_seqscan = off"))
    reconcile_all()
    explain = "EXPLAIN QUERY PLAN " if database == "sqlite" else "EXPLAIN "

    plan = db.session.connection().exec_driver_sql(
        explain + statements[-1].replace("?", "10").replace("%(param_1)s::INTEGER", "10")
    )

    assert "task_unfinished" in str(plan.all())


def test_one_job_that_cannot_be_reconciled_does_not_keep_the_others_waiting(
    app: Flask, redis_server: RedisServer
) -> None:
    broken, whole = start(tasks.noop.s()), start(tasks.noop.s())
    for task_id in (broken, whole):
        crash(app, task_id)
        make_older(task_id, published_at=60)
    make_older(broken, created_at=60)
    backend = app.extensions["celery"].backend
    redis_server.client.set(backend.get_key_for_task(broken), "no json")
    before = utcnow()

    assert reconcile_all() == 1
    assert rows_of(whole)[0].published_at >= before


@pytest.mark.both_databases(each_run=False)
def test_a_killed_worker_loses_nothing(
    app: Flask, make_worker: Callable[..., Worker], tmp_path: Path, diary: Path
) -> None:
    gate = tmp_path / "gate"
    doomed = make_worker(concurrency=1, TASK_LEASE="1")
    job_id = start(tasks.count.s(str(gate)), tasks.record.s(str(diary)))
    wait_for(lambda: states_of(job_id)[0] == "PROGRESS")

    doomed.kill()
    gate.touch()
    make_worker(TASK_LEASE=FOREVER)
    wait_for(lambda: (reconcile_all() and False) or "SUCCESS" in states_of(job_id), what="the job is taken over")
    wait_for(lambda: states_of(job_id) == ["SUCCESS", "SUCCESS"])

    assert [row.attempts for row in rows_of(job_id)] == [2, 1]
    assert diary.read_text() == "ran\n"


@pytest.mark.exhaustive
def test_a_worker_that_is_told_to_stop_hands_its_tasks_back_in_time(
    app: Flask, make_worker: Callable[..., Worker], tmp_path: Path, diary: Path
) -> None:
    gate = tmp_path / "gate"
    leaving = make_worker(WORKER_STOP_TIMEOUT="0.5")
    job_id = start(tasks.count.s(str(gate)), tasks.record.s(str(diary)))
    wait_for(lambda: states_of(job_id)[0] == "PROGRESS")

    leaving.process.terminate()
    wait_for(lambda: leaving.process.poll() is not None, what="the worker ends")
    gate.touch()
    make_worker()

    wait_for(lambda: states_of(job_id) == ["SUCCESS", "SUCCESS"])
    assert [(row.attempts, row.crashes) for row in rows_of(job_id)] == [(2, 0), (1, 0)]
    assert diary.read_text() == "ran\n"


@pytest.mark.exhaustive
def test_a_worker_that_is_told_to_stop_lets_a_short_task_end(
    app: Flask, make_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    leaving = make_worker(WORKER_STOP_TIMEOUT=FOREVER)
    task_id = start(tasks.count.s(str(gate)))
    wait_for(lambda: states_of(task_id)[0] == "PROGRESS")

    leaving.process.terminate()
    gate.touch()
    leaving.process.wait(PATIENCE)

    assert states_of(task_id) == ["SUCCESS"]
    assert rows_of(task_id)[0].attempts == 1


class Interpreter(subprocess.Popen[bytes]):
    """Used like Program, but by an interpreter of its own: one that was forked has the hash seed of its parent."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], *, stdout: Path) -> None:
        with stdout.open("wb") as log:
            super().__init__(
                from_nothing(command),
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


@pytest.mark.parametrize("database", ["sqlite"])
@pytest.mark.parametrize("order", ["1", "3"])  # in which a worker stops its parts
@pytest.mark.exhaustive
def test_a_worker_that_is_told_to_stop_keeps_the_leases_of_what_it_still_runs(
    app: Flask, make_worker: Callable[..., Worker], tmp_path: Path, order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "Program", Interpreter)
    gate = tmp_path / "gate"
    leaving = make_worker(TASK_LEASE="1", WORKER_STOP_TIMEOUT=FOREVER, PYTHONHASHSEED=order)
    task_id = start(tasks.stand.s(str(gate)))
    wait_for(lambda: states_of(task_id) == ["STARTED"])

    leaving.process.terminate()
    asked = utcnow()
    wait_for(lambda: (rows_of(task_id)[0].lease_expires_at or asked) > asked + timedelta(seconds=3))
    gate.touch()
    leaving.process.wait(PATIENCE)

    assert [(row.state, row.attempts) for row in rows_of(task_id)] == [("SUCCESS", 1)]


@pytest.mark.exhaustive
def test_a_frozen_worker_that_wakes_up_does_not_finish_what_was_taken_over(
    app: Flask, make_worker: Callable[..., Worker], tmp_path: Path, diary: Path
) -> None:
    gate = tmp_path / "gate"
    frozen = make_worker(concurrency=1, TASK_LEASE="1")
    job_id = start(tasks.count.s(str(gate)), tasks.record.s(str(diary)))
    wait_for(lambda: states_of(job_id)[0] == "PROGRESS")

    frozen.send_signal(signal.SIGSTOP)
    other = make_worker(TASK_LEASE=FOREVER)
    wait_for(lambda: bool(reconcile_all()) or rows_of(job_id)[0].worker == other.name, what="it is taken over")
    wait_for(lambda: rows_of(job_id)[0].worker == other.name)
    frozen.send_signal(signal.SIGCONT)
    wait_for(lambda: "was taken over" in frozen.text() or "ignored" in frozen.text(), what="it hears of it")
    assert states_of(job_id)[0] in ("STARTED", "PROGRESS")
    gate.touch()
    wait_for(lambda: states_of(job_id) == ["SUCCESS", "SUCCESS"])

    assert rows_of(job_id)[0].worker == other.name
    assert diary.read_text() == "ran\n"


@pytest.mark.exhaustive
def test_a_long_task_keeps_its_lease_without_any_progress(
    app: Flask, make_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    make_worker(TASK_LEASE="8")  # renewed every two seconds: only a worker that stands still for four loses it
    task_id = start(tasks.stand.s(str(gate)))
    wait_for(lambda: states_of(task_id) == ["STARTED"])
    leases = {rows_of(task_id)[0].lease_expires_at}

    while len(leases) < 3:
        assert reconcile_all() == 0
        leases.add(rows_of(task_id)[0].lease_expires_at)
        time.sleep(0.02)
    gate.touch()

    wait_for(lambda: states_of(task_id) == ["SUCCESS"])
    assert rows_of(task_id)[0].attempts == 1


def test_an_outcome_that_the_row_missed_is_copied(app: Flask) -> None:
    first, second = start(tasks.add.s(1, 2), tasks.noop.s()), start(tasks.fail.s())
    for task_id in (first, second):
        crash(app, task_id)
    failure = {"exc_type": "RuntimeError", "exc_message": ["x"], "exc_module": "builtins"}
    store_outcome(app, first, "SUCCESS", 3)
    store_outcome(app, second, "FAILURE", failure, "Traceback: x")

    reconcile_all()

    assert states_of(first)[0] == "SUCCESS"
    assert rows_of(first)[0].result == {"result": 3}
    assert states_of(second) == ["FAILURE"]
    assert rows_of(second)[0].traceback == "Traceback: x"


@pytest.mark.both_databases(each_run=False)
def test_a_later_step_whose_message_was_lost_gets_the_result_of_the_step_before(
    app: Flask, make_worker: Callable[..., Worker], diary: Path
) -> None:
    job_id = start(tasks.add.s(1, 2), tasks.record.s(str(diary)))
    crash(app, job_id)
    store_outcome(app, job_id, "SUCCESS", 3)
    reconcile_all()
    db.session.execute(sa.update(Task).where(Task.id == job_id).values(finished_at=utcnow() - timedelta(seconds=30)))
    db.session.commit()

    make_worker()
    reconcile_all()

    wait_for(lambda: states_of(job_id) == ["SUCCESS", "SUCCESS"])
    assert rows_of(job_id)[1].result == {"received": [3]}


@pytest.mark.both_databases(each_run=False)
def test_what_an_earlier_attempt_achieved_is_not_done_again(
    app: Flask, make_worker: Callable[..., Worker], diary: Path
) -> None:
    task_id = start(tasks.record.s(str(diary)))
    crash(app, task_id)
    store_outcome(app, task_id, "SUCCESS", {"received": []})

    make_worker()

    wait_for(lambda: states_of(task_id) == ["SUCCESS"])
    assert not diary.exists()


@pytest.mark.parametrize("ended", ["FAILURE", "REVOKED"])
def test_a_step_whose_predecessor_ended_badly_ends_with_it(app: Flask, ended: str) -> None:
    job_id = start(tasks.add.s(1, 2), tasks.noop.s())
    db.session.execute(sa.update(Task).where(Task.id == job_id).values(state=ended, error="why", finished_at=utcnow()))
    db.session.commit()

    reconcile_all()

    assert states_of(job_id) == [ended, ended]
    assert AsyncResult(rows_of(job_id)[1].id).state == ended


def test_a_cancellation_that_nobody_is_there_to_hear_is_carried_out(app: Flask) -> None:
    job_id = start(tasks.add.s(1, 2), tasks.noop.s())
    crash(app, job_id)
    db.session.execute(sa.update(Task).values(cancel_requested_at=utcnow()))
    db.session.commit()

    reconcile_all()

    assert states_of(job_id) == ["REVOKED", "REVOKED"]


def test_a_task_that_crashed_too_many_workers_is_given_up_with_a_sentence(app: Flask) -> None:
    job_id = start(tasks.add.s(1, 2), tasks.noop.s())
    for _ in range(3):
        crash(app, job_id)

    reconcile_all()

    assert states_of(job_id) == ["FAILURE", "FAILURE"]
    assert "died, again and again" in (rows_of(job_id)[0].error or "")


@pytest.mark.both_databases(each_run=False)
def test_a_step_begins_only_when_the_one_before_is_known_to_have_succeeded(
    app: Flask, make_worker: Callable[..., Worker], redis_server: RedisServer, tmp_path: Path, diary: Path
) -> None:
    gate = tmp_path / "gate"
    make_worker(concurrency=1)  # which leaves the next message in the queue
    job_id = start(tasks.stand.s(str(gate)), tasks.record.s(str(diary)))
    wait_for(lambda: states_of(job_id) == ["STARTED", "PENDING"])
    db.session.execute(sa.update(Task).values(message="locked"))  # until the rollback the row takes no success

    gate.touch()
    wait_for(lambda: AsyncResult(job_id).state == "SUCCESS", what="Redis knows of the success")
    assert redis_server.client.llen("default") == 0

    db.session.rollback()
    wait_for(lambda: states_of(job_id) == ["SUCCESS", "SUCCESS"])
    first, second = rows_of(job_id)
    assert first.finished_at < second.published_at < second.started_at


def test_a_job_of_a_kind_that_no_longer_exists_ends_once_every_process_must_have_learned_of_a_new_one(
    app: Flask,
) -> None:
    task_id = start(tasks.noop.s())
    db.session.execute(sa.update(Task).values(name="from_a_release_to_come"))
    make_older(task_id, created_at=60)
    reconcile_all()
    assert states_of(task_id) == ["PENDING"]

    make_older(task_id, created_at=3601)
    reconcile_all()

    assert [(row.state, row.error) for row in rows_of(task_id)] == [("FAILURE", "This kind of job no longer exists.")]
