"""Repair rows after faults, so that every job ends whatever was killed or lost; and publish retries when they are due.

It reads unfinished rows only, by their partial index, and changes nothing if there is nothing to do. Several may run at
once: claims, the result backend and publish() let each effect happen only once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar

import sqlalchemy as sa
from celery import bootsteps
from flask import current_app

from microblog.clock import elapsed
from microblog.database import DatabaseTime, DatabaseUnavailable, LogDatabaseErrors, database_time, lock_against_fork
from microblog.extensions import REDIS_UNAVAILABLE, db, redis_client
from microblog.taskqueue import states
from microblog.taskqueue.errors import CancelRequested, JobError, TaskNotRegistered, TooManyCrashes, user_message
from microblog.taskqueue.interface import celery_app, message_republished
from microblog.taskqueue.launch import publish
from microblog.taskqueue.models import Task
from microblog.taskqueue.queues import consumed_until

logger = logging.getLogger(__name__)
T = TypeVar("T")

GRACE = timedelta(seconds=5)  # for a message on its way to its queue, and from there to its claim; then it doubles
LONGEST_REPUBLISH = timedelta(minutes=15)
UNREGISTERED_GRACE = timedelta(hours=1)  # for a deployment in progress, after which every process has every task
STARTED_AT = elapsed()  # of this process
TURN_KEY = "reconcile"  # exists while no other worker is to begin; if it is lost, two at once are harmless
TURN_MARGIN = 100  # milliseconds by which it expires before the next turn of the same worker
LATE = 1.0  # seconds by which a pause and a write must differ from the pause to show that the process was stopped
BATCH = 500
IS_DUE = "it is due"  # the one reason that is no fault: a retry, or a message that a worker of another release returned

_DATABASE_TIME = sa.select(DatabaseTime())
_fork_lock = lock_against_fork()


@dataclass(frozen=True)
class Decision:
    """A repair of a job: `step` is its first unfinished step, `reason` a sentence for operators.

    `act` makes the repair and returns whether it was still needed.
    """

    step: Task
    reason: str
    act: Callable[[], bool]


class Reconciler(bootsteps.StartStopStep):
    """Reconciles every ``RECONCILE_INTERVAL`` seconds; of all workers that run, one at a time does it.

    It runs in a thread of the worker's main process, so that it neither waits behind the tasks of users nor takes a
    process from them. After an outage of the database or a time in which it was read-only or locked, after the machine
    was suspended, and after a step of the database's clock, it only publishes what is due for half the duration of a
    lease, so that workers renew their leases first and none is counted as a crash.
    """

    requires = ("celery.worker.components:Pool",)  # whose first processes are forked without a thread

    def start(self, worker: Any) -> None:
        """Start the thread, which ends with the process."""
        threading.Thread(target=self._run, args=(worker,), name="reconciler", daemon=True).start()

    def _run(self, worker: Any) -> None:
        app = worker.app.flask_app
        interval, pause = app.config["RECONCILE_INTERVAL"], app.config["TASK_LEASE"] / 2
        not_before = 0.0
        while True:
            try:
                before = self._database_time(worker)
                time.sleep(interval)
                if not self._can_write(worker):
                    not_before = elapsed() + pause
                    continue
                now = self._database_time(worker)
                if before is None or now is None or abs((now - before).total_seconds() - interval) > LATE:
                    not_before = elapsed() + pause
                if now is not None:
                    with app.app_context():
                        self._reconcile(worker, only_due=elapsed() < not_before)
            except Exception:  # the thread must not end
                logger.exception("jobs cannot be reconciled; the next attempt follows")
                time.sleep(interval)

    def _database_time(self, worker: Any) -> datetime | None:
        """Return the time of the database's clock, by which leases expire; None if it is unavailable."""
        now: datetime | None = None
        with LogDatabaseErrors(logger, "jobs are reconciled later"), _fork_lock:
            [(now,)] = worker.app.executor.execute(_DATABASE_TIME)
        return now

    def _can_write(self, worker: Any) -> bool:
        """Return whether the database accepts changes, without which no lease is renewed."""
        try:
            with _fork_lock:
                worker.app.executor.check_writable()
        except DatabaseUnavailable as error:
            logger.warning("the database cannot be written (%s); jobs are reconciled later", error.orig)
            return False
        return True

    def _reconcile(self, worker: Any, only_due: bool) -> None:
        with LogDatabaseErrors(logger, "jobs are reconciled later"):
            try:
                reconcile_in_turn(worker.hostname, only_due=only_due)
            except REDIS_UNAVAILABLE as error:
                logger.warning("Redis is unavailable (%s); jobs are reconciled later", error)


def reconcile_in_turn(worker: str, *, only_due: bool = False) -> int | None:
    """Reconcile every unfinished job, unless another worker has begun that less than ``RECONCILE_INTERVAL`` ago.

    With `only_due`, only the messages that are due are published, such as those of automatic retries.
    Returns the number of repairs; None if it was not the turn of `worker`.
    """
    client = redis_client.connection
    milliseconds = max(1, int(current_app.config["RECONCILE_INTERVAL"] * 1000) - TURN_MARGIN)
    with _fork_lock:
        if not client.set(client.key(TURN_KEY), worker, nx=True, px=milliseconds):
            return None
    repairs = 0
    try:
        for repaired in _repairs(only_due):
            repairs += repaired
            with _fork_lock:  # a long turn does not end before it has
                client.pexpire(client.key(TURN_KEY), milliseconds)
        return repairs
    finally:
        with _fork_lock:  # before the app context does it
            db.session.remove()


def reconcile_all() -> int:
    """Reconcile every unfinished job; returns the number of repairs."""
    return sum(_repairs())


def _repairs(only_due: bool = False) -> Iterator[bool]:
    """Make each repair; yield whether it was still needed."""
    for decision in decisions(only_due=only_due):
        yield _isolated(decision.step, decision.act) or False


def decisions(*, only_due: bool = False) -> Iterator[Decision]:
    """Yield the repairs to make, or those that are `only_due`, the oldest job first, without making them."""
    with _fork_lock:
        now = database_time(db.session)
        consumed = consumed_until(now)
    for step in _current_steps(consumed, only_due):
        decision = _isolated(step, partial(_decide, step, consumed, now))
        if decision is not None:
            yield decision


def _isolated(step: Task, act: Callable[[], T]) -> T | None:
    """Return ``act()``; an error of one job is logged, so that the other jobs are reconciled all the same."""
    with _fork_lock:
        try:
            return act()
        except (*REDIS_UNAVAILABLE, DatabaseUnavailable):
            raise  # the same would happen to every other job
        except Exception:
            logger.exception("%s cannot be reconciled now; the next run tries again", step.id)
            return None
        finally:
            db.session.rollback()


def _current_steps(consumed: Mapping[str, datetime], only_due: bool = False) -> Iterator[Task]:
    """Yield the first unfinished step of each job that may need a repair, oldest job first; reads them in batches."""
    after: tuple[datetime, str] | None = None
    earlier = sa.orm.aliased(Task)
    while True:
        query = (
            sa.select(Task)
            .where(Task.unfinished, _may_need_repair(consumed))
            .where(
                ~sa.exists().where(
                    earlier.root_id == Task.root_id, earlier.position < Task.position, earlier.unfinished
                )
            )
            .order_by(Task.created_at, Task.id)
            .limit(BATCH)
        )
        if only_due:
            query = query.where(Task.published_at.is_(None), Task.eta <= DatabaseTime())
        if after:
            query = query.where(sa.tuple_(Task.created_at, Task.id) > after)
        with _fork_lock:
            batch = db.session.scalars(query).all()
            for step in batch:  # a commit or rollback for one step must not expire the others
                db.session.expunge(step)
            db.session.rollback()  # a task looks for its result in a session of its own
        yield from batch
        if len(batch) < BATCH:
            return
        after = batch[-1].created_at, batch[-1].id


def _may_need_repair(consumed: Mapping[str, datetime]) -> sa.ColumnElement[bool]:
    """Return the condition of the rows that _decide() is to look at: not those that run, nor those in their queue."""
    now, previous = DatabaseTime(), sa.orm.aliased(Task)
    left_queue = (sa.and_(Task.queue == queue, Task.published_at < until - GRACE) for queue, until in consumed.items())
    ended_before_it = sa.exists().where(
        previous.root_id == Task.root_id,
        previous.position == Task.position - 1,
        previous.state.in_((states.FAILURE, states.REVOKED)),
    )
    return sa.and_(
        sa.or_(Task.state.in_(states.WAITING), Task.lease_expires_at.is_(None), Task.lease_expires_at <= now),
        sa.or_(
            Task.state.in_(states.RUNNING),
            sa.and_(Task.published_at.is_(None), sa.or_(Task.eta.is_(None), Task.eta <= now)),
            *left_queue,
            Task.cancel_requested_at.is_not(None),
            Task.name.not_in(list(celery_app().tasks)),
            sa.and_(Task.position > 0, ended_before_it),
        ),
    )


def _decide(step: Task, consumed: Mapping[str, datetime], now: datetime) -> Decision | None:
    """Return the repair that `step` needs, if any; `now` is the time of the database's clock."""
    task = celery_app().tasks.get(step.name)
    if step.attempts and task is not None and task.has_result(step.id):
        return Decision(step, "Its result is missing from its row.", lambda: bool(task.recover_result(step.id)))
    previous = _previous_step(step)
    error = _final_error(step, previous, now)
    if error is not None:
        return Decision(step, f"It must end: {user_message(error)}", partial(_end, step, error))
    reason = _missing_message(step, previous, consumed, now)
    if reason:
        return Decision(step, f"It must be published: {reason}.", partial(_publish_again, step, previous, reason))
    return None


def _end(step: Task, error: Exception) -> bool:
    celery_app().backend.end([step.id], error)
    return True


def _final_error(step: Task, previous: Task | None, now: datetime) -> Exception | None:
    """Return the error with which `step` ends because it can never run; None if it can."""
    error: Exception | None = None
    died = _lease_of(step) is not None  # it has expired, and no claim has counted that yet
    if previous is not None and previous.state == states.FAILURE:
        error = JobError(previous.error)
    elif step.cancel_requested_at is not None or (previous is not None and previous.state == states.REVOKED):
        error = CancelRequested.final_error
    elif step.crashes + died >= current_app.config["TASK_MAX_CRASHES"]:
        error = TooManyCrashes.final_error
    elif step.name not in celery_app().tasks and _known_for(step, now) > UNREGISTERED_GRACE:
        error = TaskNotRegistered(step.name)
    return error


def _known_for(step: Task, now: datetime) -> timedelta:
    """Return how long `step` and this process have existed."""
    return min(now - step.created_at, timedelta(seconds=elapsed() - STARTED_AT))


def _missing_message(step: Task, previous: Task | None, consumed: Mapping[str, datetime], now: datetime) -> str:
    """Return why the message that would run `step` is considered lost; empty if it may be in transit."""
    lease = _lease_of(step)
    due_since = lease or step.eta or (previous and previous.finished_at) or step.created_at
    if step.published_at is None:
        if step.eta is not None:
            return IS_DUE if step.eta <= now else ""
        return "never published" if now - due_since > GRACE else ""
    until = consumed.get(step.queue)
    if lease is not None and step.published_at <= lease:  # later messages may still be waiting for a worker
        given_back = until is not None and until <= step.published_at  # a dead process loses no message of its worker
        return "" if given_back else "its worker is gone, and no message was sent since"
    expected = max(step.published_at, step.eta or step.published_at)
    if until is None or until - expected <= GRACE:
        return ""  # it is in its queue, or was taken just now
    # Wait as long again as it was overdue at its last publication, so that the pauses double.
    pause = min(max(GRACE, step.published_at - due_since), LONGEST_REPUBLISH)
    return "it has left its queue, and no worker has claimed it" if now - expected > pause else ""


def _lease_of(step: Task) -> datetime | None:
    """Return when the lease of a step expires; None for a step that waits or was released."""
    return step.lease_expires_at if step.state in states.RUNNING else None


def _previous_step(step: Task) -> Task | None:
    if step.position == 0:
        return None
    return db.session.scalar(sa.select(Task).where(Task.root_id == step.root_id, Task.position == step.position - 1))


def _publish_again(step: Task, previous: Task | None, reason: str) -> bool:
    following = sa.select(Task.signature).where(Task.root_id == step.root_id, Task.position > step.position)
    signatures = [step.retry_signature or step.signature, *db.session.scalars(following.order_by(Task.position))]
    app = celery_app()
    results = [_result_of(previous)] if previous else []
    db.session.rollback()  # the row is changed by the same connection
    published = publish(app.executor, signatures, *results, expected_published_at=step.published_at)
    if published:
        logger.info("published %s: %s", step.id, reason)
        if reason != IS_DUE:
            message_republished.send(app, task_id=step.id)
    return published


def _result_of(step: Task) -> Any:
    """Return the result of a step from Redis, else from its row."""
    meta = celery_app().backend.get_task_meta(step.id)
    return meta["result"] if meta["status"] == states.SUCCESS else step.return_value
