"""Snapshot of the Task table in one transaction: finished, unfinished and waiting tasks."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from microblog.monitoring import statistics
from microblog.monitoring.models import RollUp
from microblog.monitoring.rollup import TaskAggregate
from microblog.taskqueue import states
from microblog.taskqueue.models import Task


@dataclass(frozen=True)
class UnfinishedTasks:
    """Sums over unfinished tasks of one name and state; `started` counts those that were claimed at least once."""

    count: int
    started: int
    attempts: int
    crashes: int


@dataclass(frozen=True)
class UnfinishedJobs:
    """The number of unfinished jobs with the same first task, and when the oldest was launched."""

    count: int
    oldest: datetime


@dataclass(frozen=True)
class TaskTableSnapshot:
    """The Task table at one instant.

    `finished` and `unfinished` are by name and state of the task, `jobs` by the name of a job's first task.
    `waiting_since` maps a queue to the time since when its longest-waiting task has waited to be started, retried, or
    taken over from a worker that is gone. Steps whose previous step has not succeeded do not count. `rolled_up_until`
    is the time up to which finished tasks were aggregated; later ones were counted from their rows.
    """

    finished: dict[tuple[str, str], TaskAggregate]
    unfinished: dict[tuple[str, str], UnfinishedTasks]
    jobs: dict[str, UnfinishedJobs]
    waiting_since: dict[str, datetime]
    rolled_up_until: datetime


def take_snapshot() -> TaskTableSnapshot:
    """Return the current snapshot. Its cost grows with the number of unfinished tasks. Raises DatabaseUnavailable."""
    with statistics.snapshot() as session:
        return TaskTableSnapshot(
            finished=statistics.totals(session),
            unfinished=_unfinished(session),
            jobs=_jobs(session),
            waiting_since=_waiting_since(session),
            rolled_up_until=session.scalars(sa.select(RollUp.until)).one(),
        )


def _unfinished(session: Session) -> dict[tuple[str, str], UnfinishedTasks]:
    sums = (sa.func.count(), sa.func.count(Task.started_at), sa.func.sum(Task.attempts), sa.func.sum(Task.crashes))
    rows = session.execute(
        sa.select(Task.name, Task.state, *sums).where(Task.unfinished).group_by(Task.name, Task.state)
    )
    return {(name, state): UnfinishedTasks(*counted) for name, state, *counted in rows}


def _jobs(session: Session) -> dict[str, UnfinishedJobs]:
    root = aliased(Task)
    rows = session.execute(
        sa.select(root.name, sa.func.count(Task.root_id.distinct()), sa.func.min(Task.created_at))
        .join(root, root.id == Task.root_id)
        .where(Task.unfinished)
        .group_by(root.name)
    )
    return {name: UnfinishedJobs(count, oldest) for name, count, oldest in rows}


def _waiting_since(session: Session) -> dict[str, datetime]:
    previous = aliased(Task)
    since = sa.case(
        (Task.state.in_(states.RUNNING), sa.func.coalesce(Task.lease_expires_at, Task.updated_at)),
        (Task.state == states.RETRY, Task.eta),
        else_=sa.func.coalesce(previous.finished_at, Task.created_at),
    )
    rows = session.execute(
        sa.select(Task.queue, sa.type_coerce(sa.func.min(since), Task.created_at.type))
        .outerjoin(previous, sa.and_(previous.root_id == Task.root_id, previous.position == Task.position - 1))
        .where(Task.unfinished, sa.or_(Task.position == 0, previous.state == states.SUCCESS))
        .group_by(Task.queue)
    )
    return {queue: oldest for queue, oldest in rows if oldest is not None}
