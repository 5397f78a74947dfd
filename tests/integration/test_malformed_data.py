"""Malformed data in Redis, beside the queues, stops neither workers nor reconcile nor commands."""

from __future__ import annotations

import pytest
from flask import Flask

from microblog.taskqueue.reconcile import reconcile_all
from tests.support import tasks
from tests.support.factories import crash, make_older, rows_of, start
from tests.support.servers import RedisServer

pytestmark = pytest.mark.parametrize("database", ["sqlite"])

RESULTS = {
    "text": "hello",
    "bytes": b"\xff",
    "nested": "[" * 100_000,
    "list": "[]",
    "no result": '{"status": "SUCCESS"}',
    "list as state": '{"status": [], "result": 1}',
    "unknown type": '{"status": "SUCCESS", "result": {"__type__": "unknown", "__value__": 1}}',
}


@pytest.mark.parametrize("kind", RESULTS)
def test_malformed_result_counts_as_missing(app: Flask, redis_server: RedisServer, kind: str) -> None:
    backend = app.extensions["celery"].backend
    crashed, succeeded = start(tasks.noop.s()), start(tasks.echo.s(), tasks.noop.s())
    crash(app, crashed)
    backend.mark_as_done(succeeded, 7)
    for job_id in (crashed, succeeded):
        make_older(job_id, created_at=60, published_at=60, finished_at=60)
        redis_server.client.set(backend.get_key_for_task(job_id).decode(), RESULTS[kind])

    assert reconcile_all() == 2, "one is published again, and the next step of the other is published"


def test_malformed_error_keeps_its_state(app: Flask, redis_server: RedisServer) -> None:
    backend, task_id = app.extensions["celery"].backend, start(tasks.noop.s())
    crash(app, task_id)
    redis_server.client.set(backend.get_key_for_task(task_id).decode(), '{"status": "FAILURE", "result": 7}')

    assert reconcile_all() == 1

    assert rows_of(task_id)[0].state == "FAILURE"
