"""The main process of a worker renews the leases of running tasks, but not of released ones."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from celery.worker import state as worker_state
from flask import Flask

from microblog.clock import utcnow
from microblog.database import DatabaseUnavailable
from microblog.taskqueue import transitions, worker
from microblog.taskqueue.worker import LeaseRenewer, renew_running_leases, stop_renewing
from tests.support import not_none, tasks
from tests.support.factories import rows_of, start
from tests.support.servers import wait_for

pytestmark = pytest.mark.both_databases

WORKER = "one@host"


class EndOfTest(Exception):
    """Ends the thread of a renewer. In a worker, the thread ends with its process."""


class StoppableRenewer(LeaseRenewer):
    """A lease renewer whose thread can be stopped."""

    def _run(self, worker: Any) -> None:
        with contextlib.suppress(EndOfTest):
            super()._run(worker)


class Request:
    """A request that the worker has passed to one of its child processes."""

    def __init__(self, task_id: str) -> None:
        self.id = task_id


@pytest.fixture
def deliver() -> Iterator[Callable[[str], Request]]:
    """Marks a task as active in this process, as if its message was passed to a child process."""
    requests: list[Request] = []

    def mark_active(task_id: str) -> Request:
        requests.append(Request(task_id))
        worker_state.active_requests.add(requests[-1])
        return requests[-1]

    yield mark_active
    for request in requests:
        worker_state.active_requests.discard(request)


@pytest.fixture
def run(
    make_app: Callable[..., Flask], deliver: Callable[[str], Request], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], Request]]:
    """Claims a new task for a worker whose main process renews its leases."""
    app = make_app(TASK_LEASE=0.3).extensions["celery"]
    process = SimpleNamespace(app=app, hostname=WORKER)
    finished = threading.Event()

    def sleep(seconds: float) -> None:
        if finished.wait(seconds):
            raise EndOfTest

    monkeypatch.setattr(worker, "time", SimpleNamespace(sleep=sleep))
    renewer = StoppableRenewer(process)
    renewer.start(process)

    def run() -> Request:
        task_id = start(tasks.noop.s())
        transitions.claim_task(app.executor, task_id, worker=WORKER, lease=0.3, max_crashes=3)
        return deliver(task_id)

    yield run
    finished.set()
    wait_for(lambda: not renewer_threads(), what="the renewer's thread ends")


def renewer_threads() -> list[threading.Thread]:
    """Return the threads that renew leases in this process."""
    return [thread for thread in threading.enumerate() if thread.name == "lease-renewer"]


def lease_of(request: Request) -> datetime | None:
    [row] = rows_of(request.id)
    return row.lease_expires_at


def wait_for_renewal(request: Request) -> None:
    """Wait until the lease of a running task has been renewed from a new list of active requests."""

    def is_later_than(old: datetime) -> bool:
        return not_none(lease_of(request)) > old

    for _ in range(2):
        wait_for(partial(is_later_than, not_none(lease_of(request))), what="the lease is renewed")


def test_renewal_is_tried_each_second_during_an_outage(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes: Iterator[DatabaseUnavailable | None] = iter([None, *[DatabaseUnavailable("", None, OSError())] * 2, None])
    pauses: list[float] = []

    def renew(worker: Any, previous: set[Request]) -> set[Request]:
        if (error := next(outcomes)) is not None:
            raise error
        return previous

    def sleep(seconds: float) -> None:
        if len(pauses) == 4:
            raise EndOfTest
        pauses.append(seconds)

    monkeypatch.setitem(app.config, "TASK_LEASE", 30.0)
    monkeypatch.setattr(worker, "time", SimpleNamespace(sleep=sleep))
    monkeypatch.setattr(worker, "renew_running_leases", renew)

    process = SimpleNamespace(app=app.extensions["celery"], hostname=WORKER)
    StoppableRenewer(process)._run(process)

    assert pauses == [7.5, 7.5, 1.0, 1.0]


def test_released_lease_is_not_renewed(app: Flask, run: Callable[[], Request]) -> None:
    active, released = run(), run()
    wait_for_renewal(active)

    with stop_renewing(released):
        transitions.release_on_shutdown(app.extensions["celery"].executor, released.id, worker=WORKER)

    wait_for_renewal(active)
    assert lease_of(released) is None


def test_expired_lease_is_not_renewed_after_redelivery(app: Flask, deliver: Callable[[str], Request]) -> None:
    process = SimpleNamespace(app=app.extensions["celery"], hostname=WORKER)
    executor, crashed = process.app.executor, deliver(start(tasks.noop.s()))
    assert transitions.claim_task(executor, crashed.id, worker=WORKER, lease=30.0, max_crashes=3)
    running = renew_running_leases(process, renew_running_leases(process, set()))
    with stop_renewing(crashed):
        transitions.expire_lease(executor, crashed.id, worker=WORKER)

    redelivered = deliver(crashed.id)
    running = renew_running_leases(process, running)

    expiry = lease_of(redelivered)
    assert expiry is not None
    assert expiry <= utcnow()
    claimed = transitions.claim_task(executor, redelivered.id, worker=WORKER, lease=0.1, max_crashes=3)
    assert claimed is not None
    renew_running_leases(process, running)
    renewed = lease_of(redelivered)
    assert renewed is not None
    assert renewed > claimed.claimed_at + timedelta(seconds=0.1)
