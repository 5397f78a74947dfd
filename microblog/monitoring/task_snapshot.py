"""Snapshot of the Task table in one transaction: finished and unfinished tasks, and tasks that are overdue."""

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
    """Sums over unfinished tasks of one name and state; `started` are those that have been claimed at least once."""

    count: int
    started: int
    attempts: int
    crashes: int


@dataclass(frozen=True)
class UnfinishedJobs:
    """The unfinished jobs that began with one task: how many, and when the oldest was launched."""

    count: int
    oldest: datetime


@dataclass(frozen=True)
class TaskTableSnapshot:
    """The Task table at one instant.

    `finished` and `unfinished` are by name and state of the task, `jobs` by the name of a job's first task.
    `waiting_since` tells, by queue, since when the task has been waiting that has waited longest: for a worker to
    begin it, to try it again, or to take it over from one that is gone. Steps whose turn has not come do not wait.
    `rolled_up_until` is how far the sums of finished tasks reach; the rest was read from the rows.
    """

    finished: dict[tuple[str, str], TaskAggregate]
    unfinished: dict[tuple[str, str], UnfinishedTasks]
    jobs: dict[str, UnfinishedJobs]
    waiting_since: dict[str, datetime]
    rolled_up_until: datetime


def take_snapshot() -> TaskTableSnapshot:
    """The picture of now. Costs as much as there are unfinished tasks; raises DatabaseUnavailable."""
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
    before = aliased(Task)
    since = sa.case(
        (Task.state.in_(states.RUNNING), sa.func.coalesce(Task.lease_expires_at, Task.updated_at)),
        (Task.state == states.RETRY, Task.eta),
        else_=sa.func.coalesce(before.finished_at, Task.created_at),
    )
    rows = session.execute(
        sa.select(Task.queue, sa.type_coerce(sa.func.min(since), Task.created_at.type))
        .outerjoin(before, sa.and_(before.root_id == Task.root_id, before.position == Task.position - 1))
        .where(Task.unfinished, sa.or_(Task.position == 0, before.state == states.SUCCESS))
        .group_by(Task.queue)
    )
    return {queue: oldest for queue, oldest in rows if oldest is not None}
