"""Features of Celery work in a launched task as Celery documents them, or are refused with a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from celery import Signature, Task, chain
from celery.app.task import Context
from celery.result import AsyncResult
from flask import Flask

from microblog import create_app
from microblog.taskqueue import states
from microblog.taskqueue.interface import as_progress
from microblog.taskqueue.launch import launch
from microblog.taskqueue.transitions import claim_task
from tests.support import not_none, tasks
from tests.support.factories import row_of, rows_of, start, state_of
from tests.support.servers import RedisServer, Worker, wait_for

pytestmark = pytest.mark.parametrize("database", ["sqlite"])


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("ignore", "a launched task cannot end with Ignore() without a final state"),
        ("reject", "a launched task cannot end with reject requeue=True: not now without a final state"),
        ("replace", "a launched task cannot be replaced by noop()"),
    ],
)
def test_ending_without_state_fails_task(app: Flask, worker: Worker, how: str, reason: str) -> None:
    task_id = start(tasks.end_with.s(how))

    wait_for(lambda: state_of(task_id) == states.FAILURE)
    row = row_of(task_id)
    assert (row.attempts, row.crashes) == (1, 0)
    assert reason in not_none(row.traceback)


def test_ignore_after_stored_state_keeps_it(app: Flask, worker: Worker) -> None:
    task_id = start(tasks.end_with.s("stored"))

    wait_for(lambda: state_of(task_id) == states.FAILURE)
    assert (row_of(task_id).error, row_of(task_id).attempts) == ("Stored by hand.", 1)


def test_state_with_own_name_is_progress(app: Flask, worker: Worker, release_file: Path) -> None:
    task_id = start(tasks.announce_states.s(str(release_file)))

    wait_for(lambda: row_of(task_id).message == "PARSING")
    row = row_of(task_id)
    assert (row.state, row.progress, row.current, row.total) == (states.PROGRESS, 25, 1, 4)
    wait_for(lambda: AsyncResult(task_id).state == "PARSING")
    release_file.touch()
    wait_for(lambda: state_of(task_id) == states.SUCCESS)


@pytest.mark.parametrize(
    ("state", "meta", "stored"),
    [
        ("PROGRESS", {"current": 1, "total": 3}, (1, 3, 33, "")),
        ("PROGRESS", {"current": 5, "total": 3, "percent": 250, "message": "x"}, (5, 3, 100, "x")),
        ("PROGRESS", {"current": "many", "total": -1, "percent": 10**30}, (0, None, 0, "")),
        ("PROGRESS", [1, 2], (0, None, 0, "")),
        ("PARSING", {"message": "Parsing"}, (0, None, 0, "Parsing")),
        ("PARSING", "line 7", (0, None, 0, "PARSING")),
    ],
)
def test_any_meta_is_progress(app: Flask, state: str, meta: Any, stored: tuple[Any, ...]) -> None:
    assert tuple(as_progress(state, meta).values()) == stored


def test_task_that_calls_itself_keeps_next_step(app: Flask, worker: Worker) -> None:
    job_id = start(tasks.call_itself.s(2), tasks.echo.s())

    wait_for(lambda: [row.state for row in rows_of(job_id)] == [states.SUCCESS, states.SUCCESS])
    assert rows_of(job_id)[1].return_value == {"args": [2], "name": ""}


def test_result_of_launched_task_is_never_ignored(app: Flask, worker: Worker) -> None:
    task_id = start(tasks.no_result.s())

    wait_for(lambda: state_of(task_id) == states.SUCCESS)
    assert row_of(task_id).return_value == "ignored by Celery"


def test_launch_refuses_list(app: Flask) -> None:
    with pytest.raises(TypeError, match="a job is the signature of a task or a chain, not"):
        launch([chain(tasks.noop.s(), tasks.noop.s())])


def test_launch_refuses_soft_limit_above_hard_limit(app: Flask) -> None:
    with pytest.raises(TypeError, match="has a soft time limit of 20 s, above its hard limit of 10 s"):
        launch(tasks.noop.s().set(soft_time_limit=20, time_limit=10))


def test_task_with_other_base_class_is_registered_but_not_launched(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    class Plain(Task):
        name = "plain"

        def run(self) -> None:
            return None

    app = create_app()
    app.extensions["celery"].register_task(Plain())
    with app.app_context(), pytest.raises(TypeError, match="plain has a base class of its own"):
        launch(Signature("plain", app=app.extensions["celery"]))


def test_failures_expire_as_set(app: Flask, redis_server: RedisServer) -> None:
    backend = app.extensions["celery"].backend
    failed, done = start(tasks.noop.s()), start(tasks.noop.s())
    backend.failure_expires = 60

    backend.store_result(failed, RuntimeError("broken"), states.FAILURE)
    backend.store_result(done, 1, states.SUCCESS)

    times = [redis_server.client.ttl(backend.get_key_for_task(task_id).decode()) for task_id in (failed, done)]
    assert times[0] <= 60 < times[1]
    backend.failure_expires = backend.expires


def test_task_that_updates_another_keeps_its_own_claim(app: Flask) -> None:
    executor, backend = app.extensions["celery"].executor, app.extensions["celery"].backend
    own, other = start(tasks.noop.s()), start(tasks.noop.s())
    claim_task(executor, other, "other@host", lease=60, max_crashes=3)
    request = Context({"id": own, "hostname": "own@host", "delivery_info": {}})
    request.claim = claim_task(executor, own, "own@host", lease=60, max_crashes=3)

    backend.store_result(other, 1, states.SUCCESS, request=request)

    assert (state_of(other), backend.get_state(other)) == (states.STARTED, states.PENDING)
    assert request.claim.lease_valid
