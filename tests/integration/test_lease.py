"""A worker's main process renews the leases of what it runs, and of nothing that it has given back."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import pytest
from celery.worker import state as worker_state
from flask import Flask

from microblog.clock import utcnow
from microblog.taskqueue import transitions
from microblog.taskqueue.worker import LeaseRenewer, renew_running_leases, stop_renewing
from tests.support import tasks
from tests.support.factories import rows_of, start
from tests.support.servers import wait_for

pytestmark = pytest.mark.both_databases

WORKER = "one@host"


class EndOfTest(Exception):
    """Ends the thread of a keeper, which in a worker ends with its process."""


class Keeper(LeaseRenewer):
    """A keeper whose thread can end."""

    def _run(self, worker: Any) -> None:
        with contextlib.suppress(EndOfTest):
            super()._run(worker)


class Running:
    """A message that a worker has given to one of its children."""

    def __init__(self, task_id: str) -> None:
        self.id = task_id


@pytest.fixture
def given_out() -> Iterator[Callable[[str], Running]]:
    """Gives a task's message to one of the children of this process."""
    running: list[Running] = []

    def give_out(task_id: str) -> Running:
        running.append(Running(task_id))
        worker_state.active_requests.add(running[-1])
        return running[-1]

    yield give_out
    for request in running:
        worker_state.active_requests.discard(request)


@pytest.fixture
def run(
    make_app: Callable[..., Flask], given_out: Callable[[str], Running], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], Running]]:
    """Claims a new task for a worker whose main process keeps its leases."""
    app = make_app(TASK_LEASE=0.3).extensions["celery"]
    worker = SimpleNamespace(app=app, hostname=WORKER)
    over = threading.Event()

    def sleep(seconds: float) -> None:
        if over.wait(seconds):
            raise EndOfTest

    monkeypatch.setattr("microblog.taskqueue.worker.time", SimpleNamespace(sleep=sleep))
    keeper = Keeper(worker)
    keeper.start(worker)

    def run() -> Running:
        task_id = start(tasks.noop.s())
        transitions.claim_task(app.executor, task_id, worker=WORKER, lease=0.3, max_crashes=3)
        return given_out(task_id)

    yield run
    over.set()
    wait_for(lambda: not keepers(), what="the keeper's thread ends")


def keepers() -> list[threading.Thread]:
    """The threads that renew leases in this process."""
    return [thread for thread in threading.enumerate() if thread.name == "lease-renewer"]


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

    with stop_renewing(given_back):
        transitions.release_on_shutdown(app.extensions["celery"].executor, given_back.id, worker=WORKER)

    wait_for_a_round(kept)
    assert lease_of(given_back) is None


def test_a_dead_lease_does_not_come_to_life_with_a_message_given_out_again(
    app: Flask, given_out: Callable[[str], Running]
) -> None:
    worker = SimpleNamespace(app=app.extensions["celery"], hostname=WORKER)
    rows, died = worker.app.executor, given_out(start(tasks.noop.s()))
    assert transitions.claim_task(rows, died.id, worker=WORKER, lease=30.0, max_crashes=3)
    known = renew_running_leases(worker, renew_running_leases(worker, set()))
    with stop_renewing(died):
        transitions.expire_lease(rows, died.id, worker=WORKER)

    again = given_out(died.id)
    known = renew_running_leases(worker, known)

    ended = lease_of(again)
    assert ended is not None
    assert ended <= utcnow()
    claimed = transitions.claim_task(rows, again.id, worker=WORKER, lease=0.1, max_crashes=3)
    assert claimed is not None
    renew_running_leases(worker, known)
    renewed = lease_of(again)
    assert renewed is not None
    assert renewed > claimed.expires_at
