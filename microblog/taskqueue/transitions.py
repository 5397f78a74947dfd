"""Every statement that inserts or updates a task's row: one function for each arrow of the state diagram.

======================  ============================================  ==================================================
function                transition                                    called by
======================  ============================================  ==================================================
insert_tasks            (new) to PENDING                              launch_jobs()
mark_published          sets ``published_at``                         publish()
mark_unpublished        clears it                                     publish()
return_message          clears it, sets ``eta``                       Consumer.on_unknown_task()
claim_task              PENDING, RETRY or an expired lease            JobTask.before_start()
                        to STARTED
renew_leases            extends the lease of STARTED and PROGRESS     the worker, four times a lease
expire_lease            ends it: the process died                     JobRequest.on_failure()
release_on_shutdown     clears it: the worker stops                   JobRequest.cancel()
store_progress          STARTED to PROGRESS                           DatabaseResultBackend
store_success           unfinished to SUCCESS                         DatabaseResultBackend
store_retry             unfinished to RETRY                           DatabaseResultBackend
store_failure           unfinished to FAILURE                         DatabaseResultBackend
store_revoked           unfinished to REVOKED                         DatabaseResultBackend
request_cancellation    sets ``cancel_requested_at``                  cancel_jobs()
anonymize_tasks         removes the data of the user from rows        delete_jobs_of_user()
======================  ============================================  ==================================================

Each is a single compare-and-set statement: the condition that permits the change is part of it. A row in a terminal
state never changes again, except by anonymize_tasks(). Rows of whole jobs are deleted by the package `jobs`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from celery.app.task import Context
from sqlalchemy.orm import Session, scoped_session

from microblog.clock import elapsed
from microblog.database import AutocommitExecutor, DatabaseTime, count_changed, dialect_insert
from microblog.taskqueue import states
from microblog.taskqueue.errors import (
    AlreadyFinished,
    Cancelled,
    CancelRequested,
    ClaimLost,
    ClaimRefused,
    HeldElsewhere,
    Superseded,
    TooManyCrashes,
    WorkerDied,
)
from microblog.taskqueue.interface import Claim, claim_of
from microblog.taskqueue.models import Task, wrap_result

task_table: sa.Table = Task.__table__  # type: ignore[assignment]

NOW = DatabaseTime()
EXPIRES = DatabaseTime(sa.bindparam("lease", type_=sa.Float()))

UNFINISHED = task_table.c.state.in_(states.UNFINISHED)
#: No worker holds the task: it waits, was released, or its holder let the lease expire.
UNHELD = sa.or_(
    task_table.c.state.in_(states.WAITING),
    task_table.c.lease_expires_at.is_(None),
    task_table.c.lease_expires_at <= NOW,
)
# 1 if the lease of a running task has expired: its worker died, which the next claim or store_failure() counts.
UNCOUNTED_CRASH = sa.case(
    (sa.and_(task_table.c.state.in_(states.RUNNING), task_table.c.lease_expires_at.is_not(None)), 1), else_=0
)
_CRASHES_LEFT = task_table.c.crashes + UNCOUNTED_CRASH < sa.bindparam("max_crashes", type_=sa.Integer())
_NOT_SUPERSEDED = task_table.c.retries <= sa.bindparam("number_of_retry", type_=sa.Integer())
_ID = task_table.c.id == sa.bindparam("task_id")
_AMONG_IDS = task_table.c.id.in_(sa.bindparam("task_ids", expanding=True))
_STORED_STEP = [task_table.c[name] for name in ("id", "root_id", "position", "user_id", "name", "updated_at")]


def _in_order(*conditions: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    """Return `conditions` for an UPDATE of several rows, which locks these in the order of their ids.

    In different orders, two such statements could each hold a row that the other one waits for: a deadlock.
    """
    rows = sa.select(task_table.c.id).where(*conditions).order_by(task_table.c.id).correlate(None)
    return task_table.c.id.in_(rows.with_for_update())


# Launching and publishing


def insert_tasks(session: Session, jobs: Sequence[list[dict[str, Any]]]) -> dict[str, datetime]:
    """Insert the rows of jobs in the session's transaction; returns the times of their creation by the ids of the jobs.

    Inserts no row of a job whose user has an unfinished task with the name of one of them, also one of these jobs.
    """
    # In a fixed order as in _in_order(), since an equal row of another transaction is waited for.
    ordered = sorted(jobs, key=lambda rows: rows[0]["user_id"] or 0)
    # Without the ORM, which would take longer for two rows than the rest of a launch.
    insert = dialect_insert(session.get_bind(), task_table).on_conflict_do_nothing()
    returned = insert.returning(task_table.c.id, task_table.c.created_at)
    inserted = session.connection().execute(returned, [row for rows in ordered for row in rows])
    created = {row.id: row.created_at for row in inserted}
    refused = {rows[0]["id"] for rows in jobs if not all(row["id"] in created for row in rows)}
    if refused:
        session.execute(sa.delete(Task).where(Task.root_id.in_(refused)))
    return {rows[0]["id"]: created[rows[0]["id"]] for rows in jobs if rows[0]["id"] not in refused}


# Only the message of the current retry: what the caller has read may be older.
_CURRENT = task_table.c.retries == sa.bindparam("number_of_retry", type_=sa.Integer())
_EXPECTED = task_table.c.published_at.is_not_distinct_from(sa.bindparam("expected", type_=NOW.type))
_PUBLISHED = (
    sa.update(task_table)
    .where(_in_order(_AMONG_IDS, UNFINISHED, _CURRENT, _EXPECTED))
    .values(published_at=NOW)
    .returning(task_table.c.id, task_table.c.published_at)
)
_UNPUBLISHED = sa.update(task_table).where(_in_order(_AMONG_IDS, _EXPECTED)).values(published_at=None)


def mark_published(
    executor: AutocommitExecutor, task_ids: Collection[str], expected: datetime | None, retries: int = 0
) -> dict[str, datetime]:
    """Set `published_at` to now where it is `expected`, for the messages of automatic retry number `retries`.

    Returns the time, by id. Of several callers only the one that gets a task publishes it.
    """
    rows = executor.execute(_PUBLISHED, task_ids=task_ids, number_of_retry=retries, expected=expected)
    return {row.id: row.published_at for row in rows}


def mark_unpublished(executor: AutocommitExecutor, task_ids: Collection[str], published_at: datetime) -> None:
    """Undo mark_published(): the messages could not be sent."""
    executor.execute(_UNPUBLISHED, task_ids=task_ids, expected=published_at)


RETURN_PAUSE = 5.0  # seconds until a message that was returned is published again
_RETURNED = (
    sa.update(task_table).where(_ID, UNFINISHED, UNHELD).values(published_at=None, eta=DatabaseTime(RETURN_PAUSE))
)


def return_message(executor: AutocommitExecutor, task_id: str) -> None:
    """Have a task published again soon: its message cannot run where it was received. Raises DatabaseUnavailable."""
    executor.execute(_RETURNED, task_id=task_id)


# Claims and leases

_CLAIM = (
    sa.update(task_table)
    .where(
        _ID,
        UNFINISHED,
        task_table.c.cancel_requested_at.is_(None),
        _NOT_SUPERSEDED,
        _CRASHES_LEFT,
        UNHELD,
    )
    .values(
        state=states.STARTED,
        worker=sa.bindparam("by"),
        attempts=task_table.c.attempts + 1,
        crashes=task_table.c.crashes + UNCOUNTED_CRASH,
        lease_expires_at=EXPIRES,
        eta=None,
        started_at=sa.func.coalesce(task_table.c.started_at, NOW),
        published_at=sa.func.coalesce(task_table.c.published_at, NOW),
        updated_at=NOW,
    )
    .returning(
        task_table.c.root_id,
        task_table.c.position,
        task_table.c.user_id,
        task_table.c.attempts.label("attempt"),
        task_table.c.started_at,
        task_table.c.updated_at.label("claimed_at"),
    )
)
_WHY_REFUSED = sa.select(
    task_table.c.state,
    task_table.c.cancel_requested_at,
    UNHELD.label("unheld"),
    (~_CRASHES_LEFT).label("crashed_too_often"),
    (~_NOT_SUPERSEDED).label("superseded"),
).where(_ID)


def claim_task(
    executor: AutocommitExecutor, task_id: str, worker: str, *, lease: float, max_crashes: int, retries: int = 0
) -> Claim | None:
    """Claim a task for `worker` for `lease` seconds; `retries` is the number of automatic retries in its message.

    Returns the claim, or None for a task without a row, which runs unclaimed. Raises a ClaimRefused if it must not
    run now, and DatabaseUnavailable.
    """
    while True:
        valid_until = elapsed() + lease  # from before the statement, so that the row's lease does not end earlier
        limits = {"task_id": task_id, "max_crashes": max_crashes, "number_of_retry": retries}
        won = executor.execute(_CLAIM, **limits, by=worker, lease=lease)
        if won:
            return Claim(task_id, **won[0]._mapping, valid_until=valid_until)
        refused = executor.execute(_WHY_REFUSED, **limits)
        if not refused:
            return None
        if refusal := _refusal(refused[0], task_id):
            raise refusal
        # The row has changed between the two statements, so that the task can be claimed now.


def _refusal(row: sa.Row[Any], task_id: str) -> ClaimRefused | None:
    if row.state in states.FINISHED:
        return AlreadyFinished(f"{task_id} is {row.state} already")
    if not row.unheld:
        return HeldElsewhere(f"{task_id} is being run by another worker")
    if row.superseded:
        return Superseded(f"{task_id} has been retried since this message was published")
    if row.cancel_requested_at:
        return CancelRequested(f"{task_id} has a cancellation request")
    if row.crashed_too_often:
        return TooManyCrashes(f"{task_id} has crashed too many workers")
    return None


_BY_HOLDER = sa.and_(_ID, UNFINISHED, task_table.c.attempts == sa.bindparam("attempt"))
_STILL_CURRENT = sa.select(task_table.c.cancel_requested_at).where(_BY_HOLDER)


def check_claim(executor: AutocommitExecutor, claim: Claim) -> None:
    """Check in the row that `claim` is still valid. Raises ClaimLost, Cancelled and DatabaseUnavailable."""
    current = executor.execute(_STILL_CURRENT, task_id=claim.task_id, attempt=claim.attempt)
    if not current:
        raise ClaimLost(f"{claim.task_id} was taken over or has ended")
    if current[0].cancel_requested_at is not None:
        raise Cancelled


_HELD_BY_WORKER = sa.update(task_table).where(
    _in_order(_AMONG_IDS, task_table.c.worker == sa.bindparam("by"), task_table.c.state.in_(states.RUNNING))
)
_RENEW = _HELD_BY_WORKER.values(lease_expires_at=EXPIRES)
_EXPIRE = _HELD_BY_WORKER.values(lease_expires_at=NOW)
_RELEASE = _HELD_BY_WORKER.values(lease_expires_at=None)


def renew_leases(executor: AutocommitExecutor, task_ids: list[str], worker: str, *, lease: float) -> None:
    """Extend the leases of all tasks that `worker` runs to `lease` seconds from now. Raises DatabaseUnavailable."""
    if task_ids:
        executor.execute(_RENEW, task_ids=task_ids, by=worker, lease=lease)


def expire_lease(executor: AutocommitExecutor, task_id: str, worker: str) -> None:
    """Let the lease of a task expire: the process that ran it for `worker` died. Raises DatabaseUnavailable."""
    executor.execute(_EXPIRE, task_ids=[task_id], by=worker)


def release_on_shutdown(executor: AutocommitExecutor, task_id: str, worker: str) -> None:
    """Release a task that `worker` stops running; this is not a crash. Raises DatabaseUnavailable."""
    executor.execute(_RELEASE, task_ids=[task_id], by=worker)


# Progress and results


class Writer(NamedTuple):
    """The process that stores a state of the tasks `task_ids`, and the condition under which their rows accept it.

    A run holds a claim: the row must still be on its attempt. The worker's main process (time limits, lost processes)
    and all others (cancel, reconcile) may write only what no other process than `worker` holds.
    """

    claim: Claim | None
    task_ids: Sequence[str]
    worker: str = ""

    @classmethod
    def of(cls, task_ids: Sequence[str], request: Context | None) -> Writer:
        """Return the writer of a state of these tasks, from the request that Celery passes to the result backend.

        That request is of another task if a task stores the state of another one.
        """
        claim = claim_of(request)
        if claim is not None and [claim.task_id] == list(task_ids):
            return cls(claim, task_ids)
        return cls(None, task_ids, getattr(request, "hostname", None) or "")

    @property
    def condition(self) -> sa.ColumnElement[bool]:
        """The condition on a row."""
        return _BY_OTHERS if self.claim is None else _BY_HOLDER

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters of the condition."""
        if self.claim is None:
            return {"task_ids": self.task_ids, "by": self.worker}
        return {"task_id": self.claim.task_id, "attempt": self.claim.attempt}


_BY_OTHERS = sa.and_(_AMONG_IDS, UNFINISHED, sa.or_(UNHELD, task_table.c.worker == sa.bindparam("by")))
_IDS = sa.select(task_table.c.id)


def accepted_ids(executor: AutocommitExecutor, writer: Writer) -> list[str]:
    """Return the ids of those tasks whose rows accept a state from `writer`; a task without a row accepts all.

    Raises ClaimLost if the claim of the writer is no longer valid, and DatabaseUnavailable.
    """
    accepted = {task_id for (task_id,) in executor.execute(_IDS.where(writer.condition), **writer.parameters)}
    if len(accepted) < len(writer.task_ids):
        existing = {task_id for (task_id,) in executor.execute(_IDS.where(_AMONG_IDS), task_ids=writer.task_ids)}
        if existing and writer.claim is not None:
            raise ClaimLost(f"{writer.claim.task_id} was taken over")
        accepted |= set(writer.task_ids) - existing
    return [task_id for task_id in writer.task_ids if task_id in accepted]


_PROGRESS = (
    sa.update(task_table)
    .where(_BY_HOLDER)
    .values(
        state=states.PROGRESS,
        progress=sa.bindparam("percent"),
        current=sa.bindparam("done"),
        total=sa.bindparam("of_total"),
        message=sa.bindparam("text"),
        lease_expires_at=EXPIRES,
        updated_at=NOW,
    )
    .returning(task_table.c.cancel_requested_at)
)


def store_progress(executor: AutocommitExecutor, claim: Claim, meta: dict[str, Any], *, lease: float) -> None:
    """Store `meta`, as interface.Progress builds it, and extend the lease to `lease` seconds from now.

    Raises ClaimLost if another attempt has taken over, Cancelled if the user requested it, and DatabaseUnavailable.
    """
    valid_until = elapsed() + lease
    stored = executor.execute(
        _PROGRESS,
        task_id=claim.task_id,
        attempt=claim.attempt,
        percent=meta.get("percent", 0),
        done=meta.get("current", 0),
        of_total=meta.get("total"),
        text=meta.get("message", ""),
        lease=lease,
    )
    if not stored:
        raise ClaimLost(f"{claim.task_id} was taken over")
    if stored[0].cancel_requested_at is not None:
        raise Cancelled
    claim.valid_until = valid_until


class StoredStep(NamedTuple):
    """Identity of the row in which a state was stored, and when."""

    id: str
    root_id: str
    position: int
    user_id: int | None
    name: str
    updated_at: datetime


# Built once, since nearly every task runs this statement.
_SUCCESS = (
    sa.update(task_table)
    .values(
        state=states.SUCCESS,
        result=sa.bindparam("returned", type_=task_table.c.result.type),
        progress=100,
        current=sa.func.coalesce(task_table.c.total, task_table.c.current),
        error=None,
        lease_expires_at=None,
        finished_at=NOW,
        updated_at=NOW,
    )
    .returning(*_STORED_STEP)
)
_SUCCESS_BY_HOLDER, _SUCCESS_BY_OTHERS = _SUCCESS.where(_BY_HOLDER), _SUCCESS.where(_BY_OTHERS)


def store_success(executor: AutocommitExecutor, writer: Writer, result: Any) -> list[StoredStep]:
    """Store SUCCESS and the returned value; returns the rows that accept it. Raises DatabaseUnavailable."""
    statement = _SUCCESS_BY_HOLDER if writer.claim else _SUCCESS_BY_OTHERS
    return _stored_steps(executor.execute(statement, **writer.parameters, returned=wrap_result(result)))


def store_retry(executor: AutocommitExecutor, writer: Writer, sentence: str, traceback: str | None) -> list[StoredStep]:
    """Store RETRY with the signature of the retry, to be published, and when it is due; else as store_failure()."""
    values: dict[str, Any] = {"eta": NOW, "published_at": None}
    if writer.claim is not None and writer.claim.retry is not None:
        retry, eta = writer.claim.retry, DatabaseTime(writer.claim.retry_pause)
        values |= {"eta": eta, "retry_signature": retry, "retries": retry["options"]["retries"]}
    return _store_error(executor, writer, states.RETRY, sentence, traceback, values)


def store_failure(
    executor: AutocommitExecutor, writer: Writer, error: BaseException, sentence: str, traceback: str | None
) -> list[StoredStep]:
    """Store FAILURE because of `error`; returns the rows that accept it.

    `sentence` is shown to the user. Raises DatabaseUnavailable.
    """
    values: dict[str, Any] = {"finished_at": NOW}
    if isinstance(error, WorkerDied):  # no later claim counts the last crash
        values["crashes"] = task_table.c.crashes + UNCOUNTED_CRASH
    return _store_error(executor, writer, states.FAILURE, sentence, traceback, values)


def store_revoked(
    executor: AutocommitExecutor, writer: Writer, sentence: str, traceback: str | None
) -> list[StoredStep]:
    """Store REVOKED: the task was cancelled; otherwise as store_failure()."""
    return _store_error(executor, writer, states.REVOKED, sentence, traceback, {"finished_at": NOW})


def _store_error(
    executor: AutocommitExecutor, writer: Writer, state: str, sentence: str, traceback: str | None, more: dict[str, Any]
) -> list[StoredStep]:
    values = {"state": state, "error": sentence, "traceback": traceback, "lease_expires_at": None, "updated_at": NOW}
    statement = sa.update(task_table).where(_in_order(writer.condition)).values(values | more).returning(*_STORED_STEP)
    return _stored_steps(executor.execute(statement, **writer.parameters))


def _stored_steps(rows: list[sa.Row[Any]]) -> list[StoredStep]:
    return [StoredStep(**row._mapping) for row in rows]


# Users


def request_cancellation(
    session: scoped_session[Any], root_ids: Collection[str]
) -> Sequence[sa.Row[str, str, int, str]]:
    """Ask for the unfinished steps of jobs to be cancelled, in the session's transaction.

    Returns `id`, `root_id`, `position` and `state` of these steps.
    """
    statement = (
        sa.update(Task)
        .where(_in_order(task_table.c.root_id.in_(root_ids), UNFINISHED))
        .values(cancel_requested_at=sa.func.coalesce(Task.cancel_requested_at, NOW), updated_at=NOW)
        .returning(Task.id, Task.root_id, Task.position, Task.state)
        .execution_options(synchronize_session=False)
    )
    return session.execute(statement).all()


def anonymize_tasks(session: scoped_session[Any], task_ids: sa.Select[str] | Iterable[str]) -> int:
    """Remove the data of users from rows, in the session's transaction; returns the number of rows.

    Name, state, times and worker remain, since statistics need them.
    """
    statement = (
        sa.update(Task)
        .where(Task.id.in_(task_ids))
        .values(user_id=None, description=Task.name, message="", result=None, error=None, traceback=None)
        .values(signature={}, retry_signature=None)
    )
    return count_changed(session, statement)
