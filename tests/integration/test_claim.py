"""A task runs once at a time, and what a worker that lost its claim writes does not count."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from celery.app.task import Context
from celery.exceptions import TaskRevokedError
from celery.result import AsyncResult
from flask import Flask

from microblog.clock import utcnow
from microblog.database import AutocommitExecutor
from microblog.extensions import db
from microblog.taskqueue import transitions
from microblog.taskqueue.interface import Cancelled, ClaimLost, ClaimRefused
from microblog.taskqueue.launch import launch
from microblog.taskqueue.models import Task
from microblog.taskqueue.transitions import Claim, CurrentRun
from tests.support import tasks
from tests.support.servers import RedisServer

pytestmark = pytest.mark.both_databases

LEASE = 600.0  # seconds: none runs out by itself while a test looks at it
COUNTS = {"current": 1, "total": 2, "percent": 50, "message": "half"}


@pytest.fixture
def task_id(app: Flask) -> str:
    """A launched task that no worker has."""
    app.config["TASK_LEASE"] = LEASE
    row = launch(tasks.add.s(1, 2))
    db.session.commit()
    return row.id


@pytest.fixture
def executor(app: Flask) -> AutocommitExecutor:
    executor: AutocommitExecutor = app.extensions["celery"].executor
    return executor


@pytest.fixture
def backend(app: Flask) -> Any:
    return app.extensions["celery"].backend


def take(executor: AutocommitExecutor, task_id: str, worker: str = "one@host", lease: float = LEASE) -> Claim:
    held = transitions.claim_task(executor, task_id, worker=worker, lease=lease, max_crashes=3)
    assert held is not None
    return held


def row_of(task_id: str) -> Task:
    db.session.rollback()
    row = db.session.get(Task, task_id, populate_existing=True)
    assert row is not None
    return row


def request_of(held: Claim) -> Context:
    """The context that Celery hands to the backend for a task that holds a claim."""
    context = Context({"id": held.task_id, "hostname": "one@host", "delivery_info": {}})
    context.run = CurrentRun(held)
    return context


def run_out(held: Claim) -> None:
    """Let the lease of a claim run out, for its holder's own clock too."""
    past = utcnow() - timedelta(seconds=1)
    db.session.execute(sa.update(Task).where(Task.id == held.task_id).values(lease_expires_at=past))
    db.session.commit()
    held.expires_at = past


def test_a_claim_says_who_runs_the_task_and_until_when(executor: AutocommitExecutor, task_id: str) -> None:
    held = take(executor, task_id)

    row = row_of(task_id)
    assert (row.state, row.worker, row.attempts, row.crashes) == ("STARTED", "one@host", 1, 0)
    assert row.lease_expires_at == held.expires_at
    assert row.started_at is not None


def test_only_one_of_many_wins_a_claim(app: Flask, executor: AutocommitExecutor, task_id: str) -> None:
    barrier = threading.Barrier(8)
    outcomes: list[str] = []

    def try_to_claim(number: int) -> None:
        barrier.wait()
        try:
            take(executor, task_id, worker=f"{number}@host")
            outcomes.append("won")
        except ClaimRefused:
            outcomes.append("refused")

    threads = [threading.Thread(target=try_to_claim, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(outcomes) == ["refused"] * 7 + ["won"]


def test_a_live_lease_keeps_others_out_and_a_dead_one_does_not(executor: AutocommitExecutor, task_id: str) -> None:
    first = take(executor, task_id)
    with pytest.raises(transitions.HeldElsewhere):
        take(executor, task_id, worker="two@host")

    run_out(first)
    second = take(executor, task_id, worker="two@host")

    assert (second.attempt, row_of(task_id).worker, row_of(task_id).crashes) == (2, "two@host", 1)


def test_a_renewed_lease_lives_on_but_only_for_its_own_worker(executor: AutocommitExecutor, task_id: str) -> None:
    run_out(take(executor, task_id))

    transitions.renew_leases(executor, [task_id], worker="two@host", lease=LEASE)
    assert row_of(task_id).lease_expires_at < utcnow()
    transitions.renew_leases(executor, [task_id], worker="one@host", lease=LEASE)
    assert row_of(task_id).lease_expires_at > utcnow()


def test_a_process_that_died_gives_its_claim_up_at_once(executor: AutocommitExecutor, task_id: str) -> None:
    take(executor, task_id)

    transitions.expire_lease(executor, task_id, worker="one@host")

    assert take(executor, task_id, worker="two@host").attempt == 2
    assert row_of(task_id).crashes == 1


def test_a_task_that_crashed_three_workers_is_claimed_no_more(executor: AutocommitExecutor, task_id: str) -> None:
    for _ in range(3):
        run_out(take(executor, task_id))

    with pytest.raises(transitions.TooManyCrashes):
        take(executor, task_id)


def test_a_task_that_is_to_be_cancelled_is_not_claimed(executor: AutocommitExecutor, task_id: str) -> None:
    db.session.execute(sa.update(Task).values(cancel_requested_at=utcnow()))
    db.session.commit()

    with pytest.raises(transitions.CancelRequested):
        take(executor, task_id)


@pytest.mark.parametrize("state", ["SUCCESS", "FAILURE", "REVOKED"])
def test_what_has_ended_is_claimed_no_more(executor: AutocommitExecutor, task_id: str, state: str) -> None:
    db.session.execute(sa.update(Task).values(state=state, finished_at=utcnow()))
    db.session.commit()

    with pytest.raises(transitions.AlreadyFinished):
        take(executor, task_id)

    assert (row_of(task_id).state, row_of(task_id).attempts) == (state, 0)


def test_a_task_without_a_row_needs_no_claim(executor: AutocommitExecutor) -> None:
    assert transitions.claim_task(executor, "unknown", worker="one@host", lease=LEASE, max_crashes=3) is None


@pytest.mark.parametrize("state", ["SUCCESS", "FAILURE", "RETRY"])
def test_what_a_worker_writes_after_its_task_was_taken_over_reaches_neither_row_nor_redis(
    executor: AutocommitExecutor, backend: Any, task_id: str, state: str
) -> None:
    stale = take(executor, task_id)
    run_out(stale)
    take(executor, task_id, worker="two@host")

    with pytest.raises(ClaimLost):
        backend.store_result(task_id, RuntimeError() if state != "SUCCESS" else 1, state, request=request_of(stale))

    assert (row_of(task_id).state, row_of(task_id).worker) == ("STARTED", "two@host")
    assert AsyncResult(task_id).state == "PENDING"


@pytest.mark.parametrize("persist", [True, False])
def test_a_worker_learns_at_its_next_progress_that_its_task_was_taken_over(
    executor: AutocommitExecutor, backend: Any, task_id: str, persist: bool
) -> None:
    stale = take(executor, task_id)
    run_out(stale)
    take(executor, task_id, worker="two@host")

    with pytest.raises(ClaimLost):
        backend.store_result(task_id, COUNTS, "PROGRESS", request=request_of(stale), persist=persist)

    assert row_of(task_id).current == 0


def take_over(executor: AutocommitExecutor, stale: Claim) -> Claim:
    """Another worker takes a task over while its holder, frozen, believes that its own lease is live."""
    past = utcnow() - timedelta(seconds=1)
    db.session.execute(sa.update(Task).where(Task.id == stale.task_id).values(lease_expires_at=past))
    db.session.commit()
    return take(executor, stale.task_id, worker="two@host")


@pytest.mark.parametrize("state", ["PROGRESS", "SUCCESS", "FAILURE", "RETRY"])
def test_a_worker_that_froze_between_its_look_and_its_word_to_redis_overwrites_nothing(
    executor: AutocommitExecutor, backend: Any, task_id: str, state: str
) -> None:
    stale = take(executor, task_id)
    backend.store_result(task_id, 3, "SUCCESS", request=request_of(take_over(executor, stale)))
    late = {"PROGRESS": COUNTS, "SUCCESS": 4}.get(state, RuntimeError("late"))

    with pytest.raises(ClaimLost):
        backend.store_result(task_id, late, state, request=request_of(stale), persist=False)

    assert (AsyncResult(task_id).state, AsyncResult(task_id).result) == ("SUCCESS", 3)
    assert row_of(task_id).result == {"result": 3}


def test_what_a_frozen_worker_tells_redis_too_late_does_not_replace_what_the_second_said(
    executor: AutocommitExecutor, backend: Any, task_id: str
) -> None:
    stale = take(executor, task_id)
    second = take_over(executor, stale)
    backend.store_result(task_id, COUNTS, "PROGRESS", request=request_of(second))

    with pytest.raises(ClaimLost):
        backend.store_result(task_id, 4, "SUCCESS", request=request_of(stale))

    assert (AsyncResult(task_id).state, row_of(task_id).state) == ("PROGRESS", "PROGRESS")


def test_what_a_frozen_worker_did_tell_redis_gives_way_to_whoever_took_over(
    executor: AutocommitExecutor, backend: Any, task_id: str
) -> None:
    stale = take(executor, task_id)
    second = take_over(executor, stale)
    backend.store_result(task_id, RuntimeError("late"), "FAILURE", request=request_of(stale))
    assert row_of(task_id).state == "STARTED"

    backend.store_result(task_id, 3, "SUCCESS", request=request_of(second))

    assert (AsyncResult(task_id).state, row_of(task_id).state) == ("SUCCESS", "SUCCESS")


def test_a_cancellation_that_finds_the_work_done_in_redis_leaves_it_done(
    executor: AutocommitExecutor, backend: Any, task_id: str
) -> None:
    meta = {"status": "SUCCESS", "result": 3, "traceback": None}
    backend.client.set(backend.get_key_for_task(task_id), backend.encode(meta))

    backend.mark_as_revoked(task_id, "too late")

    assert (AsyncResult(task_id).state, row_of(task_id).state) == ("SUCCESS", "SUCCESS")


def test_progress_renews_the_lease(executor: AutocommitExecutor, backend: Any, task_id: str) -> None:
    held = take(executor, task_id)
    run_out(held)

    backend.store_result(task_id, COUNTS, "PROGRESS", request=request_of(held))

    row = row_of(task_id)
    assert (row.state, row.progress, row.current, row.total, row.message) == ("PROGRESS", 50, 1, 2, "half")
    assert row.lease_expires_at > utcnow()
    assert held.lease_valid


def test_a_cancellation_is_heard_at_the_next_progress(executor: AutocommitExecutor, backend: Any, task_id: str) -> None:
    held = take(executor, task_id)
    db.session.execute(sa.update(Task).values(cancel_requested_at=utcnow()))
    db.session.commit()

    with pytest.raises(Cancelled):
        backend.store_result(task_id, COUNTS, "PROGRESS", request=request_of(held))


def test_a_terminal_row_never_changes(executor: AutocommitExecutor, backend: Any, task_id: str) -> None:
    held = take(executor, task_id)
    backend.store_result(task_id, 3, "SUCCESS", request=request_of(held))
    before = row_of(task_id).finished_at

    backend.store_result(task_id, RuntimeError("late"), "FAILURE")
    backend.mark_as_revoked(task_id, "late")

    row = row_of(task_id)
    assert (row.state, row.result, row.error, row.finished_at) == ("SUCCESS", {"result": 3}, None, before)
    assert AsyncResult(task_id).state == "SUCCESS"


def test_what_was_ended_for_a_worker_that_let_its_lease_run_out_stays_as_it_ended(
    executor: AutocommitExecutor, backend: Any, task_id: str, redis_server: RedisServer
) -> None:
    frozen = take(executor, task_id)
    run_out(frozen)
    backend.end(task_id, TaskRevokedError("cancelled"))
    assert AsyncResult(task_id).state == "REVOKED"
    redis_server.client.flushall()  # the row has to know it alone

    with pytest.raises(ClaimLost):
        backend.store_result(task_id, 3, "SUCCESS", request=request_of(frozen))

    assert (row_of(task_id).state, row_of(task_id).result) == ("REVOKED", None)
    assert AsyncResult(task_id).state == "PENDING"


def test_nobody_ends_a_task_that_another_worker_holds(executor: AutocommitExecutor, backend: Any, task_id: str) -> None:
    take(executor, task_id)

    backend.mark_as_revoked(task_id, "not yours")
    backend.mark_as_failure(
        task_id, RuntimeError(), request=Context({"id": task_id, "hostname": "two@host", "delivery_info": {}})
    )

    assert row_of(task_id).state == "STARTED"
    assert AsyncResult(task_id).state == "PENDING"
