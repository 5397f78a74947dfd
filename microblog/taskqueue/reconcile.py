"""Repair rows after faults, so that every job ends whatever was killed or lost.

It reads unfinished rows only, by their partial index, and writes nothing if nothing is wrong. Several may run at once:
claim, result backend and publish() let each effect happen only once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar

import sqlalchemy as sa
from celery import shared_task
from flask import current_app
from redis.exceptions import LockError

from microblog.clock import utcnow
from microblog.database import DatabaseUnavailable
from microblog.extensions import REDIS_UNAVAILABLE, db, redis_client
from microblog.taskqueue import states
from microblog.taskqueue.interface import JobError, TaskNotRegistered, message_relayed, user_message
from microblog.taskqueue.launch import publish
from microblog.taskqueue.models import Task
from microblog.taskqueue.queues import BrokerSnapshot
from microblog.taskqueue.transitions import CancelRequested, TooManyCrashes

logger = logging.getLogger(__name__)
T = TypeVar("T")

GRACE = timedelta(seconds=5)  # for whoever is doing it just now
IDLE_GRACE = timedelta(seconds=10)  # for a message on its way from an empty queue to its claim
REPUBLISH_AFTER = timedelta(seconds=60)  # for a message in a queue that is not empty; then twice as long, and so on
REPUBLISH_AT_MOST = timedelta(minutes=15)
UNKNOWN_FOR = timedelta(hours=1)  # for a deploy under way, after which every process knows every task
LOCK_KEY = "microblog:reconcile"
LOCK_SECONDS = 10.0  # short, for the holder may be killed; one that takes longer has company, which does no harm
BATCH = 500


@dataclass(frozen=True)
class Decision:
    """A repair of a job: `head` is its first unfinished step, `why` a sentence for operators.

    `act` does it, and returns whether there was still something to do.
    """

    head: Task
    why: str
    act: Callable[[], bool]


@shared_task(name="reconcile", ignore_result=True, every="RECONCILE_INTERVAL")
def reconcile() -> int | None:
    """Reconcile every unfinished job, unless another process is doing so right now.

    Returns for how many something was done, None if another is at it, or took over because this one was too slow.
    """
    try:
        with redis_client.connection.lock(LOCK_KEY, timeout=LOCK_SECONDS, blocking=False):
            return reconcile_all()
    except LockError:
        return None


def reconcile_all() -> int:
    """Reconcile every unfinished job; returns for how many something was done."""
    return sum(_carefully(decision.head, decision.act) or False for decision in decisions())


def decisions() -> Iterator[Decision]:
    """Yield the repairs to make, the oldest job first, without making them."""
    broker = None
    for head in _current_steps():
        broker = broker or BrokerSnapshot.look()
        decision = _carefully(head, partial(_decide, head, broker))
        if decision is not None:
            yield decision


def _carefully(head: Task, act: Callable[[], T]) -> T | None:
    """Do something for one job, so that a fault in it does not keep the others from theirs."""
    try:
        return act()
    except (*REDIS_UNAVAILABLE, DatabaseUnavailable):
        raise  # the same would happen to every other
    except Exception:
        logger.exception("%s cannot be reconciled", head.id)
        return None
    finally:
        db.session.rollback()


def _current_steps() -> Iterator[Task]:
    """Of each unfinished job the first unfinished step, oldest job first, in batches."""
    after: tuple[datetime, str] | None = None
    earlier = sa.orm.aliased(Task)
    while True:
        query = (
            sa.select(Task)
            .where(Task.unfinished)
            .where(
                ~sa.exists().where(
                    earlier.root_id == Task.root_id, earlier.position < Task.position, earlier.unfinished
                )
            )
            .order_by(Task.created_at, Task.id)
            .limit(BATCH)
        )
        if after:
            query = query.where(sa.tuple_(Task.created_at, Task.id) > after)
        batch = db.session.scalars(query).all()
        if not batch:
            return
        after = batch[-1].created_at, batch[-1].id
        for head in batch:  # what one head makes us commit or roll back must not make the others be read again
            db.session.expunge(head)
        yield from batch


def _decide(head: Task, broker: BrokerSnapshot) -> Decision | None:
    """Return the repair that `head` needs, if any."""
    now = utcnow()
    if head.state in states.RUNNING and head.lease_expires_at and head.lease_expires_at > now:
        return None
    app = current_app.extensions["celery"]
    task = app.tasks.get(head.name)
    if head.attempts and task is not None and task.has_result(head.id):
        return Decision(head, "It is over, but its row has yet to say so.", lambda: bool(task.recover_result(head.id)))
    before = _step_before(head)
    ending = _ending(head, before, now)
    if ending is not None:
        return Decision(head, f"It is to end: {user_message(ending)}", partial(_end, head, ending))
    why = _why_due(head, before, broker, now)
    return Decision(head, f"It is to be published: {why}.", partial(_publish, head, before)) if why else None


def _end(head: Task, ending: Exception) -> bool:
    current_app.extensions["celery"].backend.end(head.id, ending)
    return True


def _ending(head: Task, before: Task | None, now: datetime) -> Exception | None:
    """Return the state with which `head` ends because it can never run; None if it can."""
    ending: Exception | None = None
    died = head.state in states.RUNNING and head.lease_expires_at is not None  # just now: the claim has yet to count it
    if before is not None and before.state == states.FAILURE:
        ending = JobError(before.error)
    elif head.cancel_requested_at is not None or (before is not None and before.state == states.REVOKED):
        ending = CancelRequested.ending
    elif head.crashes + died >= current_app.config["TASK_MAX_CRASHES"]:
        ending = TooManyCrashes.ending
    elif head.name not in current_app.extensions["celery"].tasks and now - head.created_at > UNKNOWN_FOR:
        ending = TaskNotRegistered(head.name)
    return ending


def _why_due(head: Task, before: Task | None, broker: BrokerSnapshot, now: datetime) -> str:
    """Why the message that would run `head` is missing, for all that can be known; empty if it may be on its way."""
    due_since = (before and before.finished_at) or head.created_at
    if head.published_at is None:
        return "it never was" if now - due_since > GRACE else ""
    if head.state in states.RUNNING and head.lease_expires_at and head.published_at <= head.lease_expires_at:
        return "its worker is gone, and nobody has been asked to take over"
    expected = max(head.published_at, head.eta or head.published_at)
    waited = now - expected
    if broker.remembers_since > head.published_at:
        return "Redis has forgotten its message" if waited > GRACE else ""
    if head.queue in broker.idle_queues:
        return "its queue is empty, and nobody came for it" if waited > IDLE_GRACE else ""
    if head.queue in broker.held_queues:
        return ""  # nobody takes messages from it, so that one that waits is none that was lost
    pause = max(REPUBLISH_AFTER, head.published_at - due_since)
    return "nobody came for it for too long" if waited > min(pause, REPUBLISH_AT_MOST) else ""


def _step_before(head: Task) -> Task | None:
    if head.position == 0:
        return None
    return db.session.scalar(sa.select(Task).where(Task.root_id == head.root_id, Task.position == head.position - 1))


def _publish(head: Task, before: Task | None) -> bool:
    ahead = sa.select(Task.signature).where(Task.root_id == head.root_id, Task.position >= head.position)
    signatures = db.session.scalars(ahead.order_by(Task.position)).all()
    app = current_app.extensions["celery"]
    results = [_value(before)] if before else []
    published = publish(app.rows, signatures, *results, seen=head.published_at)
    if published:
        logger.info("published %s again", head.id)
        message_relayed.send(app, task_id=head.id)
    return published


def _value(before: Task) -> Any:
    """Return the result of the previous step from Celery, else from the row, which wraps other values than objects."""
    meta = current_app.extensions["celery"].backend.get_task_meta(before.id)
    if meta["status"] == states.SUCCESS:
        return meta["result"]
    result = before.result or {}
    return result["result"] if set(result) == {"result"} else result
