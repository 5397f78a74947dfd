"""A worker's main process renews the leases of what it runs, and of nothing that it has given back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import pytest
from celery.worker import state as worker_state
from flask import Flask

from microblog.taskqueue import claim as claims
from microblog.taskqueue.lease import LeaseKeeper, let_go
from tests.support import tasks
from tests.support.jobs import rows_of, start
from tests.support.services import wait_for

WORKER = "one@host"


class Running:
    """A message that a worker has given to one of its children."""

    def __init__(self, task_id: str) -> None:
        self.id = task_id


@pytest.fixture
def run(make_app: Callable[..., Flask]) -> Iterator[Callable[[], Running]]:
    """Claims a new task for a worker whose main process keeps its leases."""
    app = make_app(TASK_LEASE=0.3).extensions["celery"]
    worker = SimpleNamespace(app=app, hostname=WORKER)
    keeper = LeaseKeeper(worker)
    keeper.start(worker)
    running: list[Running] = []

    def run() -> Running:
        request = Running(start(tasks.noop.s()))
        claims.claim(app.rows, request.id, worker=WORKER, lease=0.3, max_crashes=3)
        running.append(request)
        worker_state.active_requests.add(request)
        return request

    yield run
    for request in running:
        worker_state.active_requests.discard(request)


def lease_of(request: Running) -> datetime | None:
    [row] = rows_of(request.id)
    return row.lease_expires_at


def wait_for_a_round(request: Running) -> None:
    """Wait until the lease of what is still running has been renewed, from a new reading of what is."""
    for _ in range(2):
        before: Any = lease_of(request)
        wait_for(lambda before=before: lease_of(request) > before, what="the lease is renewed")  # type: ignore[misc]


def test_a_lease_that_was_given_back_is_not_renewed(app: Flask, run: Callable[[], Running]) -> None:
    kept, given_back = run(), run()
    wait_for_a_round(kept)

    with let_go(given_back):
        claims.hand_back(app.extensions["celery"].rows, given_back.id, worker=WORKER)

    wait_for_a_round(kept)
    assert lease_of(given_back) is None
