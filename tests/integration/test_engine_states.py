"""Every way in which a task can end, on both databases: the row agrees with Celery's result."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import chain
from celery.result import AsyncResult
from flask import Flask

from microblog.clock import utcnow
from microblog.extensions import db
from microblog.jobs.models import find_job
from microblog.jobs.services import cancel_job
from microblog.monitoring.job_queries import recent_outcomes
from microblog.taskqueue.launch import launch
from microblog.taskqueue.models import Task
from tests.support import tasks
from tests.support.factories import row_of
from tests.support.servers import TIMEOUT, Worker, wait_for

pytestmark = pytest.mark.both_databases


@pytest.fixture
def launch_chain(app: Flask) -> Callable[..., list[str]]:
    """Return a function that launches a chain of signatures as a job and returns the ids of its steps."""

    def launch_chain(*steps: Any) -> list[str]:
        root = launch(chain(*steps))
        db.session.commit()
        job = find_job(root.id)
        assert job is not None
        return [step.id for step in job.steps]

    return launch_chain


def finished(task_id: str) -> Task:
    """Wait until a task has ended, and return its row."""
    wait_for(lambda: not row_of(task_id).unfinished, what=f"{row_of(task_id)} ends")
    return row_of(task_id)


def assert_row_equals_result(task_id: str) -> None:
    row, result = row_of(task_id), AsyncResult(task_id)
    assert row.state == result.state
    if row.state == "SUCCESS":
        value = result.result
        assert row.result == (value if isinstance(value, dict) else {"result": value})
    assert row.finished_at is not None
    assert row.lease_expires_at is None


def test_finished_task_stores_result_in_row_and_redis(launch_chain: Callable[..., list[str]], worker: Worker) -> None:
    [task_id] = launch_chain(tasks.add.s(2, 3))

    row = finished(task_id)

    assert (row.state, row.result, row.progress, row.attempts) == ("SUCCESS", {"result": 5}, 100, 1)
    assert row.worker == worker.name
    assert_row_equals_result(task_id)


def test_step_receives_result_of_previous_step(
    launch_chain: Callable[..., list[str]], worker: Worker, tmp_path: Path
) -> None:
    first, second = launch_chain(tasks.add.s(2, 3), tasks.record.s(str(tmp_path / "runs")))

    row = finished(second)

    assert row.result == {"received": [5]}
    assert_row_equals_result(first)
    assert_row_equals_result(second)


def test_failure_fails_following_steps(launch_chain: Callable[..., list[str]], worker: Worker, tmp_path: Path) -> None:
    runs_file = tmp_path / "runs"
    first, second, third = launch_chain(tasks.fail.s(), tasks.noop.s(), tasks.record.s(str(runs_file)))

    for task_id in (first, second, third):
        row = finished(task_id)
        assert row.state == "FAILURE"
        assert "secret detail" not in (row.error or "")
        assert "secret detail" in (row.traceback or "")
        assert_row_equals_result(task_id)
    assert not runs_file.exists()


def test_task_sets_error_for_its_user(launch_chain: Callable[..., list[str]], worker: Worker) -> None:
    [task_id] = launch_chain(tasks.fail_politely.s())

    assert finished(task_id).error == "The moon is in the wrong house."


def test_error_of_a_user_is_no_failure_of_the_system(launch_chain: Callable[..., list[str]], worker: Worker) -> None:
    ids = [*launch_chain(tasks.refuse.s()), *launch_chain(tasks.fail.s())]

    assert [finished(task_id).state for task_id in ids] == ["FAILURE", "FAILURE"]

    begin = utcnow() - timedelta(minutes=5)
    outcomes = recent_outcomes(begin, begin)
    assert {name: (tasks.ended, tasks.failed) for name, tasks in outcomes.items()} == {"fail": (1, 1)}


@pytest.mark.both_databases(each_run=False)
def test_task_succeeds_after_automatic_retries(launch_chain: Callable[..., list[str]], worker: Worker) -> None:
    [task_id] = launch_chain(tasks.flaky.s(2))

    row = finished(task_id)

    assert (row.state, row.attempts, row.crashes, row.error) == ("SUCCESS", 3, 0, None)
    assert_row_equals_result(task_id)


@pytest.mark.both_databases(each_run=False)
def test_automatic_retries_are_limited(launch_chain: Callable[..., list[str]], worker: Worker) -> None:
    [task_id] = launch_chain(tasks.flaky.s(99))

    assert (finished(task_id).state, row_of(task_id).attempts) == ("FAILURE", 6)
    assert_row_equals_result(task_id)


def test_task_fails_at_soft_time_limit(launch_chain: Callable[..., list[str]], worker: Worker) -> None:
    first, second = launch_chain(tasks.too_slow.s(), tasks.noop.s())

    assert finished(first).error == "It took longer than it may and was stopped."
    assert finished(second).state == "FAILURE"
    assert_row_equals_result(first)
    assert_row_equals_result(second)


@pytest.mark.both_databases(each_run=False)
def test_task_fails_at_hard_time_limit(launch_chain: Callable[..., list[str]], worker: Worker) -> None:
    first, second = launch_chain(tasks.ignore_soft_limit.s(), tasks.noop.s())

    assert finished(first).error == "It took longer than it may and was stopped."
    assert finished(second).state == "FAILURE"
    assert_row_equals_result(first)
    assert_row_equals_result(second)


def test_cancelled_pending_job_does_not_run(
    launch_chain: Callable[..., list[str]], worker: Worker, tmp_path: Path
) -> None:
    release_files = [tmp_path / "first", tmp_path / "second"]
    runs_file = tmp_path / "runs"
    for release_file in release_files:  # both processes of the worker are busy
        launch_chain(tasks.count.s(str(release_file)))
    first, second = launch_chain(tasks.record.s(str(runs_file)), tasks.noop.s())
    job = find_job(first)
    assert job is not None

    cancel_job(job)

    for task_id in (first, second):
        assert row_of(task_id).state == "REVOKED"
        assert_row_equals_result(task_id)
    for release_file in release_files:
        release_file.touch()
    wait_for(lambda: f"{first} is REVOKED already" in worker.text(), what="the message is refused")
    assert not runs_file.exists()


def test_cancelled_job_stops_at_next_progress(
    launch_chain: Callable[..., list[str]], worker: Worker, tmp_path: Path
) -> None:
    first, second = launch_chain(tasks.count.s(str(tmp_path / "release")), tasks.noop.s())
    wait_for(lambda: row_of(first).state == "PROGRESS")
    job = find_job(first)
    assert job is not None

    cancel_job(job)

    assert finished(first).state == "REVOKED"
    assert finished(second).state == "REVOKED"
    assert_row_equals_result(first)
    assert_row_equals_result(second)


def test_terminated_task_is_revoked(
    app: Flask, launch_chain: Callable[..., list[str]], worker: Worker, tmp_path: Path
) -> None:
    first, second = launch_chain(tasks.count.s(str(tmp_path / "release")), tasks.noop.s())
    wait_for(lambda: row_of(first).state == "PROGRESS")

    app.extensions["celery"].control.revoke(first, terminate=True)

    assert finished(first).state == "REVOKED"
    assert finished(second).state == "REVOKED"
    assert_row_equals_result(first)
    assert_row_equals_result(second)


@pytest.mark.both_databases(each_run=False)
@pytest.mark.exhaustive
def test_task_runs_again_after_killing_its_process(
    launch_chain: Callable[..., list[str]], worker: Worker, tmp_path: Path
) -> None:
    [task_id] = launch_chain(tasks.kill_itself.s(str(tmp_path / "runs"), 2))

    row = finished(task_id)

    assert (row.state, row.attempts, row.crashes) == ("SUCCESS", 3, 2)
    assert_row_equals_result(task_id)


@pytest.mark.exhaustive
def test_task_fails_after_three_crashes(launch_chain: Callable[..., list[str]], worker: Worker, tmp_path: Path) -> None:
    runs_file = tmp_path / "runs"
    first, second = launch_chain(tasks.kill_itself.s(str(runs_file), 99), tasks.noop.s())

    row = finished(first)

    assert row.state == "FAILURE"
    assert row.error is not None
    assert "died" in row.error
    assert (row.attempts, row.crashes) == (3, 3)
    assert runs_file.read_text() == "ran\n" * 3
    assert finished(second).state == "FAILURE"
    assert_row_equals_result(first)
    assert_row_equals_result(second)


@pytest.mark.both_databases(each_run=False)
def test_task_runs_again_after_kill_from_outside(
    app: Flask, launch_chain: Callable[..., list[str]], worker: Worker, tmp_path: Path
) -> None:
    release_file = tmp_path / "release"
    [task_id] = launch_chain(tasks.count.s(str(release_file)))
    wait_for(lambda: row_of(task_id).state == "PROGRESS")

    inspect = app.extensions["celery"].control.inspect([worker.name], timeout=TIMEOUT)  # returns with the reply
    os.kill(inspect.active()[worker.name][0]["worker_pid"], signal.SIGKILL)
    release_file.touch()

    assert (finished(task_id).state, row_of(task_id).attempts) == ("SUCCESS", 2)
    assert_row_equals_result(task_id)


def test_task_without_row_runs_as_usual(app: Flask, worker: Worker) -> None:
    result = tasks.add.delay(20, 22)

    assert result.get(timeout=TIMEOUT) == 42
    assert db.session.get(Task, result.id) is None


def test_worker_processes_share_no_connection(
    launch_chain: Callable[..., list[str]], worker: Worker, tmp_path: Path
) -> None:
    launched = [launch_chain(tasks.identify_process.s(str(tmp_path)))[0] for _ in range(2)]

    one, two = (finished(task_id).result for task_id in launched)

    assert one is not None
    assert two is not None
    for connection in ("process", "redis", "database"):
        assert one[connection] != two[connection]
