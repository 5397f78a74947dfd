"""A task runs in one worker at a time, and a worker that lost its claim cannot write."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any
from unittest.mock import Mock

import pytest
import sqlalchemy as sa
from celery.app.task import Context
from celery.exceptions import BackendStoreError, TaskRevokedError
from celery.result import AsyncResult
from flask import Flask

from microblog.clock import elapsed, utcnow
from microblog.database import AutocommitExecutor, DatabaseUnavailable
from microblog.extensions import db
from microblog.taskqueue import errors, states, transitions
from microblog.taskqueue.errors import Cancelled, CancelRequested, ClaimLost, ClaimRefused
from microblog.taskqueue.interface import Claim
from microblog.taskqueue.launch import launch
from microblog.taskqueue.models import Task
from tests.support import not_none, tasks
from tests.support.factories import row_of, start, state_of
from tests.support.servers import RedisServer

pytestmark = pytest.mark.both_databases

LEASE = 600.0  # seconds: no lease expires by itself during a test
COUNTS = {"current": 1, "total": 2, "percent": 50, "message": "half"}


@pytest.fixture
def task_id(app: Flask) -> str:
    """The id of a launched task that no worker has claimed."""
    app.config["TASK_LEASE"] = LEASE
    row = launch(tasks.add.s(1, 2))
    db.session.commit()
    return row.id


def claim(executor: AutocommitExecutor, task_id: str, worker: str = "one@host", lease: float = LEASE) -> Claim:
    held = transitions.claim_task(executor, task_id, worker=worker, lease=lease, max_crashes=3)
    assert held is not None
    return held


def request_of(held: Claim) -> Context:
    """Return the request that Celery passes to the backend for a task with a claim."""
    context = Context({"id": held.task_id, "hostname": "one@host", "delivery_info": {}})
    context.claim = held
    return context


def expire(held: Claim) -> None:
    """Expire the lease of a claim, in the row and for its holder."""
    past = utcnow() - timedelta(seconds=1)
    db.session.execute(sa.update(Task).where(Task.id == held.task_id).values(lease_expires_at=past))
    db.session.commit()
    held.valid_until = 0.0


def test_claim_stores_worker_and_lease(executor: AutocommitExecutor, task_id: str) -> None:
    held = claim(executor, task_id)

    row = row_of(task_id)
    assert (row.state, row.worker, row.attempts, row.crashes) == ("STARTED", "one@host", 1, 0)
    assert abs(not_none(row.lease_expires_at) - row.updated_at - timedelta(seconds=LEASE)) < timedelta(seconds=0.1)
    assert 0 < held.valid_until - elapsed() <= LEASE
    assert row.started_at is not None


def test_concurrent_claims_have_one_winner(app: Flask, executor: AutocommitExecutor, task_id: str) -> None:
    barrier = threading.Barrier(8)
    outcomes: list[str] = []

    def try_to_claim(number: int) -> None:
        barrier.wait()
        try:
            claim(executor, task_id, worker=f"{number}@host")
            outcomes.append("won")
        except ClaimRefused:
            outcomes.append("refused")

    threads = [threading.Thread(target=try_to_claim, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(outcomes) == ["refused"] * 7 + ["won"]


def test_claim_refused_while_lease_valid(executor: AutocommitExecutor, task_id: str) -> None:
    first = claim(executor, task_id)
    with pytest.raises(errors.HeldElsewhere):
        claim(executor, task_id, worker="two@host")

    expire(first)
    second = claim(executor, task_id, worker="two@host")

    assert (second.attempt, row_of(task_id).worker, row_of(task_id).crashes) == (2, "two@host", 1)


def test_lease_is_renewed_only_by_its_worker(executor: AutocommitExecutor, task_id: str) -> None:
    expire(claim(executor, task_id))

    transitions.renew_leases(executor, [task_id], worker="two@host", lease=LEASE)
    assert not_none(row_of(task_id).lease_expires_at) < utcnow()
    transitions.renew_leases(executor, [task_id], worker="one@host", lease=LEASE)
    assert not_none(row_of(task_id).lease_expires_at) > utcnow()


def test_claim_succeeds_after_process_died(executor: AutocommitExecutor, task_id: str) -> None:
    claim(executor, task_id)

    transitions.expire_lease(executor, task_id, worker="one@host")

    assert claim(executor, task_id, worker="two@host").attempt == 2
    assert row_of(task_id).crashes == 1


def test_claim_refused_after_three_crashes(executor: AutocommitExecutor, task_id: str) -> None:
    for _ in range(3):
        expire(claim(executor, task_id))

    with pytest.raises(errors.TooManyCrashes):
        claim(executor, task_id)


def test_claim_refused_after_cancel_request(executor: AutocommitExecutor, task_id: str) -> None:
    db.session.execute(sa.update(Task).values(cancel_requested_at=utcnow()))
    db.session.commit()

    with pytest.raises(errors.CancelRequested):
        claim(executor, task_id)


@pytest.mark.parametrize("state", ["SUCCESS", "FAILURE", "REVOKED"])
def test_claim_refused_for_finished_task(executor: AutocommitExecutor, task_id: str, state: str) -> None:
    db.session.execute(sa.update(Task).values(state=state, finished_at=utcnow()))
    db.session.commit()

    with pytest.raises(errors.AlreadyFinished):
        claim(executor, task_id)

    assert (row_of(task_id).state, row_of(task_id).attempts) == (state, 0)


def test_task_without_row_needs_no_claim(executor: AutocommitExecutor) -> None:
    assert transitions.claim_task(executor, "unknown", worker="one@host", lease=LEASE, max_crashes=3) is None


@pytest.mark.parametrize("state", ["SUCCESS", "FAILURE", "RETRY"])
def test_store_result_is_fenced_after_takeover(
    executor: AutocommitExecutor, backend: Any, task_id: str, state: str
) -> None:
    stale = claim(executor, task_id)
    expire(stale)
    claim(executor, task_id, worker="two@host")

    with pytest.raises(ClaimLost):
        backend.store_result(task_id, RuntimeError() if state != "SUCCESS" else 1, state, request=request_of(stale))

    assert (row_of(task_id).state, row_of(task_id).worker) == ("STARTED", "two@host")
    assert AsyncResult(task_id).state == "PENDING"


@pytest.mark.parametrize("persist", [True, False])
def test_progress_raises_claim_lost_after_takeover(
    executor: AutocommitExecutor, backend: Any, task_id: str, persist: bool
) -> None:
    stale = claim(executor, task_id)
    expire(stale)
    claim(executor, task_id, worker="two@host")

    with pytest.raises(ClaimLost):
        backend.store_result(task_id, COUNTS, "PROGRESS", request=request_of(stale), persist=persist)

    assert row_of(task_id).current == 0


def take_over(executor: AutocommitExecutor, stale: Claim) -> Claim:
    """Let another worker claim a task whose frozen holder believes that its own lease is valid."""
    past = utcnow() - timedelta(seconds=1)
    db.session.execute(sa.update(Task).where(Task.id == stale.task_id).values(lease_expires_at=past))
    db.session.commit()
    return claim(executor, stale.task_id, worker="two@host")


@pytest.mark.parametrize("state", ["PROGRESS", "SUCCESS", "FAILURE", "RETRY"])
def test_frozen_worker_does_not_overwrite_finished_task(
    executor: AutocommitExecutor, backend: Any, task_id: str, state: str
) -> None:
    stale = claim(executor, task_id)
    backend.store_result(task_id, 3, "SUCCESS", request=request_of(take_over(executor, stale)))
    late = {"PROGRESS": COUNTS, "SUCCESS": 4}.get(state, RuntimeError("late"))

    with pytest.raises(ClaimLost):
        backend.store_result(task_id, late, state, request=request_of(stale), persist=False)

    assert (AsyncResult(task_id).state, AsyncResult(task_id).result) == ("SUCCESS", 3)
    assert row_of(task_id).result == {"result": 3}


def test_frozen_worker_does_not_overwrite_progress(executor: AutocommitExecutor, backend: Any, task_id: str) -> None:
    stale = claim(executor, task_id)
    second = take_over(executor, stale)
    backend.store_result(task_id, COUNTS, "PROGRESS", request=request_of(second))

    with pytest.raises(ClaimLost):
        backend.store_result(task_id, 4, "SUCCESS", request=request_of(stale))

    assert (AsyncResult(task_id).state, row_of(task_id).state) == ("PROGRESS", "PROGRESS")


def test_new_holder_overwrites_result_of_frozen_worker(
    executor: AutocommitExecutor, backend: Any, task_id: str
) -> None:
    stale = claim(executor, task_id)
    second = take_over(executor, stale)
    backend.store_result(task_id, RuntimeError("late"), "FAILURE", request=request_of(stale))
    assert row_of(task_id).state == "STARTED"

    backend.store_result(task_id, 3, "SUCCESS", request=request_of(second))

    assert (AsyncResult(task_id).state, row_of(task_id).state) == ("SUCCESS", "SUCCESS")


def test_revoke_preserves_success_in_redis(executor: AutocommitExecutor, backend: Any, task_id: str) -> None:
    meta = {"status": "SUCCESS", "result": 3, "traceback": None}
    backend.client.set(backend.get_key_for_task(task_id), backend.encode(meta))

    backend.mark_as_revoked(task_id, "too late")

    assert (AsyncResult(task_id).state, row_of(task_id).state) == ("SUCCESS", "SUCCESS")


def test_progress_renews_lease(executor: AutocommitExecutor, backend: Any, task_id: str) -> None:
    held = claim(executor, task_id)
    expire(held)

    backend.store_result(task_id, COUNTS, "PROGRESS", request=request_of(held))

    row = row_of(task_id)
    assert (row.state, row.progress, row.current, row.total, row.message) == ("PROGRESS", 50, 1, 2, "half")
    assert not_none(row.lease_expires_at) > utcnow()
    assert held.lease_valid


def test_progress_raises_cancelled_after_cancel_request(
    executor: AutocommitExecutor, backend: Any, task_id: str
) -> None:
    held = claim(executor, task_id)
    db.session.execute(sa.update(Task).values(cancel_requested_at=utcnow()))
    db.session.commit()

    with pytest.raises(Cancelled):
        backend.store_result(task_id, COUNTS, "PROGRESS", request=request_of(held))


def test_malformed_result_in_redis_is_replaced(
    executor: AutocommitExecutor, backend: Any, task_id: str, redis_server: RedisServer
) -> None:
    held = claim(executor, task_id)
    for malformed in ("{", "[]", "7"):
        redis_server.client.set(backend.get_key_for_task(task_id), malformed)
        backend.store_result(task_id, {"pid": 1}, "STARTED", request=request_of(held))
        assert AsyncResult(task_id).state == "STARTED"


def test_claim_starts_over_if_reason_has_passed(
    executor: AutocommitExecutor, task_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lease that prevents the claim ends before its reason is read."""
    first = claim(executor, task_id)
    execute = executor.execute

    def execute_late(statement: Any, **parameters: Any) -> Any:
        rows = execute(statement, **parameters)
        if statement is transitions._CLAIM and not rows:
            transitions.release_on_shutdown(executor, task_id, "one@host")
        return rows

    monkeypatch.setattr(executor, "execute", execute_late)

    refusals = []
    try:
        claim(executor, task_id, worker="two@host")
    except ClaimRefused as refusal:
        refusals.append(refusal)

    assert refusals == []
    assert (first.attempt, row_of(task_id).attempts, row_of(task_id).crashes) == (1, 2, 0)


def test_terminal_row_never_changes(executor: AutocommitExecutor, backend: Any, task_id: str) -> None:
    held = claim(executor, task_id)
    backend.store_result(task_id, 3, "SUCCESS", request=request_of(held))
    finished_at = row_of(task_id).finished_at

    backend.store_result(task_id, RuntimeError("late"), "FAILURE")
    backend.mark_as_revoked(task_id, "late")

    row = row_of(task_id)
    assert (row.state, row.result, row.error, row.finished_at) == ("SUCCESS", {"result": 3}, None, finished_at)
    assert AsyncResult(task_id).state == "SUCCESS"


def test_late_result_does_not_change_revoked_task(
    executor: AutocommitExecutor, backend: Any, task_id: str, redis_server: RedisServer
) -> None:
    frozen = claim(executor, task_id)
    expire(frozen)
    backend.end([task_id], TaskRevokedError("cancelled"))
    assert AsyncResult(task_id).state == "REVOKED"
    redis_server.client.flushall()  # only the row has the state now

    with pytest.raises(ClaimLost):
        backend.store_result(task_id, 3, "SUCCESS", request=request_of(frozen))

    assert (row_of(task_id).state, row_of(task_id).result) == ("REVOKED", None)
    assert AsyncResult(task_id).state == "PENDING"


def test_claimed_task_is_not_ended_by_others(executor: AutocommitExecutor, backend: Any, task_id: str) -> None:
    claim(executor, task_id)

    backend.mark_as_revoked(task_id, "not yours")
    backend.mark_as_failure(
        task_id, RuntimeError(), request=Context({"id": task_id, "hostname": "two@host", "delivery_info": {}})
    )

    assert row_of(task_id).state == "STARTED"
    assert AsyncResult(task_id).state == "PENDING"


def test_check_claim_raises_after_takeover_cancel_request_and_end(
    executor: AutocommitExecutor, backend: Any, task_id: str
) -> None:
    first = claim(executor, task_id)
    transitions.check_claim(executor, first)
    expire(first)
    second = claim(executor, task_id, worker="two@host")

    with pytest.raises(ClaimLost):
        transitions.check_claim(executor, first)
    transitions.request_cancellation(db.session, [task_id])
    db.session.commit()
    with pytest.raises(errors.Cancelled):
        transitions.check_claim(executor, second)
    backend.store_result(task_id, RuntimeError("broken"), "FAILURE", request=request_of(second))
    with pytest.raises(ClaimLost):
        transitions.check_claim(executor, second)


@pytest.mark.parametrize(
    "error", [BackendStoreError("Redis is away"), DatabaseUnavailable("", {}, Exception("it is away"))], ids=type
)
def test_message_of_cancelled_task_is_dropped_although_it_cannot_be_ended(
    app: Flask, backend: Any, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    task_id = start(tasks.noop.s())
    db.session.execute(sa.update(Task).values(cancel_requested_at=utcnow()))
    db.session.commit()
    monkeypatch.setattr(backend, "end", Mock(side_effect=error))
    task = app.extensions["celery"].tasks["noop"]
    task.push_request(id=task_id, root_id=task_id, hostname="one@host", retries=0)
    try:
        with pytest.raises(CancelRequested):
            task.before_start(task_id, (), {})
    finally:
        task.pop_request()

    assert state_of(task_id) == states.PENDING
