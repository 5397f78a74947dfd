"""Claims and leases: which process may run a task, decided by single compare-and-set statements on its row."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from celery.exceptions import TaskRevokedError

from microblog.clock import utcnow
from microblog.database import AutocommitExecutor, UtcDateTime
from microblog.taskqueue import states
from microblog.taskqueue.interface import ClaimRefused, WorkerDied
from microblog.taskqueue.models import Task

task_table: sa.Table = Task.__table__  # type: ignore[assignment]

NOW = sa.bindparam("now", type_=UtcDateTime())
EXPIRES = sa.bindparam("expires", type_=UtcDateTime())

UNFINISHED = task_table.c.state.in_(states.UNFINISHED)
#: No worker holds the task: it waits, was handed back, or its holder let the lease run out.
UNHELD = sa.or_(
    task_table.c.state.in_(states.WAITING),
    task_table.c.lease_expires_at.is_(None),
    task_table.c.lease_expires_at <= NOW,
)
# A lease that ran out under a running task is a worker that died. It is counted by whoever comes next: a
# claim, or who gives the task up (result_backend.py).
CRASHED = sa.case(
    (sa.and_(task_table.c.state.in_(states.RUNNING), task_table.c.lease_expires_at.is_not(None)), 1), else_=0
)

_CLAIM = (
    sa.update(task_table)
    .where(
        task_table.c.id == sa.bindparam("task_id"),
        UNFINISHED,
        task_table.c.cancel_requested_at.is_(None),
        task_table.c.crashes + CRASHED < sa.bindparam("max_crashes", type_=sa.Integer()),
        UNHELD,
    )
    .values(
        state=states.STARTED,
        worker=sa.bindparam("by"),
        attempts=task_table.c.attempts + 1,
        crashes=task_table.c.crashes + CRASHED,
        lease_expires_at=EXPIRES,
        eta=None,
        started_at=sa.func.coalesce(task_table.c.started_at, NOW),
        published_at=sa.func.coalesce(task_table.c.published_at, NOW),
        updated_at=NOW,
    )
    .returning(task_table.c.user_id, task_table.c.root_id, task_table.c.position, task_table.c.attempts)
)
_LOOK = sa.select(task_table.c.state, task_table.c.cancel_requested_at, UNHELD.label("unheld")).where(
    task_table.c.id == sa.bindparam("task_id")
)
_HELD = sa.update(task_table).where(
    task_table.c.id.in_(sa.bindparam("task_ids", expanding=True)),
    task_table.c.worker == sa.bindparam("by"),
    task_table.c.state.in_(states.RUNNING),
)
_RENEW = _HELD.values(lease_expires_at=EXPIRES)
_RELEASE = _HELD.values(lease_expires_at=NOW)
_HAND_BACK = _HELD.values(lease_expires_at=None)


class AlreadyFinished(ClaimRefused):
    """The row is in a terminal state."""


class HeldElsewhere(ClaimRefused):
    """Another attempt's lease is live."""


class CancelRequested(ClaimRefused):
    """The user asked for the job to be cancelled."""

    ending = TaskRevokedError("cancelled")


class TooManyCrashes(ClaimRefused):
    """The task has taken down as many workers as it may."""

    ending = WorkerDied("too many crashes")


@dataclass
class Claim:
    """A worker's right to run one task.

    `attempt` is the fence: what the claim's holder writes counts only while the row's `attempts` is still this
    number. Until `expires_at` nobody else can have taken the task over, so the holder need not ask.
    """

    task_id: str
    root_id: str
    position: int
    user_id: int | None
    attempt: int
    expires_at: datetime

    @property
    def fresh(self) -> bool:
        """Return whether the lease is live by this process's own clock."""
        return utcnow() < self.expires_at


def claim_task(rows: AutocommitExecutor, task_id: str, worker: str, *, lease: float, max_crashes: int) -> Claim | None:
    """Claim a task for `worker` for `lease` seconds.

    Returns the claim, or None for a task without a row, which runs unclaimed. Raises a ClaimRefused if it must not
    run now, and DatabaseUnavailable.
    """
    now = utcnow()
    expires = now + timedelta(seconds=lease)
    won = rows.execute(_CLAIM, task_id=task_id, by=worker, max_crashes=max_crashes, now=now, expires=expires)
    if won:
        row = won[0]
        return Claim(task_id, row.root_id, row.position, row.user_id, row.attempts, expires)
    for row in rows.execute(_LOOK, task_id=task_id, now=now):
        raise _refusal(row, task_id)
    return None


def _refusal(row: sa.Row[Any], task_id: str) -> ClaimRefused:
    if row.state in states.FINISHED:
        return AlreadyFinished(f"{task_id} is {row.state} already")
    if not row.unheld:
        return HeldElsewhere(f"{task_id} is being run by another worker")
    if row.cancel_requested_at:
        return CancelRequested(f"{task_id} is to be cancelled")
    return TooManyCrashes(f"{task_id} has crashed too many workers")


def renew_leases(rows: AutocommitExecutor, task_ids: list[str], worker: str, *, lease: float) -> None:
    """Extend the leases of all tasks that `worker` runs to `lease` seconds from now. Raises DatabaseUnavailable."""
    if task_ids:
        expires = utcnow() + timedelta(seconds=lease)
        rows.execute(_RENEW, task_ids=task_ids, by=worker, expires=expires)


def expire_lease(rows: AutocommitExecutor, task_id: str, worker: str) -> None:
    """Let the lease of a task run out: the process that ran it for `worker` is gone. Raises DatabaseUnavailable."""
    rows.execute(_RELEASE, task_ids=[task_id], by=worker, now=utcnow())


def release_on_shutdown(rows: AutocommitExecutor, task_id: str, worker: str) -> None:
    """Free a task that `worker` was told to stop running, which is no crash. Raises DatabaseUnavailable."""
    rows.execute(_HAND_BACK, task_ids=[task_id], by=worker)
