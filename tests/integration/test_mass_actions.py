"""Cancel and retry many jobs at once: the same promises as for one job, in a few statements for each batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NoReturn

import pytest
import redis
from celery.exceptions import TaskRevokedError
from celery.result import AsyncResult
from flask import Flask

from microblog.database import DatabaseUnavailable
from microblog.extensions import db
from microblog.taskqueue import launch as launch_module
from microblog.taskqueue import result_backend, states
from microblog.taskqueue.interface import TaskChange, task_changed
from microblog.taskqueue.launch import launch
from microblog.taskqueue.transitions import (
    StoredStep,
    Writer,
    claim_task,
    store_revoked,
)
from tests.support.factories import (
    add_task,
    row_of,
    start,
    state_of,
    states_of,
    store_result_in_redis,
)
from tests.support.servers import RedisServer
from tests.support.tasks import noop


@pytest.fixture
def backend(app: Flask) -> Any:
    return app.extensions["celery"].backend


@pytest.fixture
def announced(app: Flask) -> Iterator[list[str]]:
    """The ids of the tasks that were announced as REVOKED, in order."""
    ids: list[str] = []

    def record(_sender: object, change: TaskChange) -> None:
        if change.state == states.REVOKED:
            ids.append(change.id)

    with task_changed.connected_to(record):
        yield ids


def lose_database(*_arguments: object) -> NoReturn:
    raise DatabaseUnavailable("", {}, OSError("gone"))


@pytest.mark.both_databases(each_run=False)
class TestEndingSeveralTasks:
    def test_only_unheld_and_unfinished_tasks_end(self, app: Flask, backend: Any) -> None:
        first, second, held = start(noop.s()), start(noop.s(), noop.s()), start(noop.s())
        claim_task(app.extensions["celery"].executor, held, "one@host", lease=60, max_crashes=3)
        add_task("done", states.SUCCESS)

        backend.end([first, held, "done", second], TaskRevokedError("cancelled"))

        assert (state_of(first), states_of(second)) == (states.REVOKED, [states.REVOKED, states.REVOKED])
        assert [AsyncResult(task_id).state for task_id in (first, second)] == [states.REVOKED, states.REVOKED]
        assert (state_of(held), state_of("done")) == (states.STARTED, states.SUCCESS)
        assert [AsyncResult(task_id).state for task_id in (held, "done")] == [states.PENDING, states.PENDING]

    def test_open_pages_learn_of_each_task(self, app: Flask, backend: Any, announced: list[str]) -> None:
        ids = [start(noop.s()) for _ in range(3)]

        backend.end(ids, TaskRevokedError("cancelled"))

        assert sorted(announced) == sorted(ids)

    def test_row_is_announced_though_database_fails_for_others(
        self, app: Flask, backend: Any, announced: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        english, spanish = (start(noop.s().set(headers={"locale": locale})) for locale in ("en", "es"))

        def store_english(executor: Any, writer: Writer, *details: Any) -> list[StoredStep]:
            return store_revoked(executor, writer, *details) if writer.task_ids == [english] else lose_database()

        with monkeypatch.context() as patch:
            patch.setattr(result_backend, "store_revoked", store_english)
            backend.end([english, spanish], TaskRevokedError("cancelled"))
        assert (state_of(english), state_of(spanish), announced) == (states.REVOKED, states.PENDING, [english])

        backend.end([english, spanish], TaskRevokedError("cancelled"))
        assert (state_of(english), state_of(spanish), announced) == (states.REVOKED, states.REVOKED, [english, spanish])

    def test_row_is_announced_though_database_fails_for_next_step(
        self, app: Flask, backend: Any, announced: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        job_id = start(noop.s(), noop.s())
        monkeypatch.setattr(backend, "_advance_chain", lose_database)

        backend.end([job_id], TaskRevokedError("cancelled"))

        assert (states_of(job_id), announced) == ([states.REVOKED, states.PENDING], [job_id])

    def test_tasks_end_though_redis_fails_for_one_that_has_a_result(
        self, app: Flask, backend: Any, announced: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        succeeded, waiting = start(noop.s()), start(noop.s())
        store_result_in_redis(app, succeeded, states.SUCCESS, {})

        def lose_redis(_task_id: str) -> bool:
            raise redis.ConnectionError("connection refused")

        monkeypatch.setattr(backend, "copy_result", lose_redis)
        with pytest.raises(redis.ConnectionError):
            backend.end([succeeded, waiting], TaskRevokedError("cancelled"))

        assert (state_of(succeeded), state_of(waiting), announced) == (states.PENDING, states.REVOKED, [waiting])

    def test_result_that_only_redis_has_is_kept(self, app: Flask, backend: Any) -> None:
        waiting, succeeded = start(noop.s()), start(noop.s())
        store_result_in_redis(app, succeeded, states.SUCCESS, {})

        backend.end([succeeded, waiting], TaskRevokedError("cancelled"))

        assert (state_of(succeeded), state_of(waiting)) == (states.SUCCESS, states.REVOKED)
        assert [AsyncResult(task_id).state for task_id in (succeeded, waiting)] == [states.SUCCESS, states.REVOKED]

    def test_error_is_in_language_of_each_user(self, app: Flask, backend: Any) -> None:
        ids = [start(noop.s().set(headers={"locale": locale})) for locale in ("en", "es")]

        backend.end(ids, TaskRevokedError("cancelled"))

        assert [row_of(task_id).error for task_id in ids] == ["It was cancelled.", "Se canceló."]


@pytest.mark.both_databases(each_run=False)
class TestLaunchingSeveralJobs:
    def test_all_are_published_after_commit(self, app: Flask, redis_server: RedisServer) -> None:
        roots = [launch(noop.s()) for _ in range(3)]
        assert redis_server.waiting("default") == 0

        db.session.commit()

        assert redis_server.waiting("default") == 3
        assert all(root.published_at for root in roots)

    def test_unavailable_broker_is_tried_once(
        self, app: Flask, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tried: list[str] = []
        send = launch_module._send

        def count_and_send(task_id: str, *arguments: Any) -> bool:
            tried.append(task_id)
            return send(task_id, *arguments)

        monkeypatch.setattr(launch_module, "_send", count_and_send)
        with redis_server.stopped():
            ids = [launch(noop.s()).id for _ in range(3)]
            db.session.commit()

        assert len(tried) == 1
        assert [row_of(task_id).published_at for task_id in ids] == [None, None, None]
