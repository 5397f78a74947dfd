"""A job: the Task rows that share a root, seen as one object."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any

import sqlalchemy as sa

from microblog.clock import iso
from microblog.extensions import db
from microblog.taskqueue import states
from microblog.taskqueue.models import Task
from microblog.validators import is_storable


@dataclass(frozen=True)
class Job:
    """The steps of one job, in order; the first is its root and lends it its id."""

    steps: list[Task]

    @property
    def root(self) -> Task:
        """The first step."""
        return self.steps[0]

    @property
    def id(self) -> str:
        """The root's id."""
        return self.root.id

    @property
    def current(self) -> Task:
        """The step that tells how the job stands: the one that ended it, or the first that has yet to end."""
        return next((step for step in self.steps if step.state != states.SUCCESS), self.steps[-1])

    @property
    def state(self) -> str:
        """The state of the current step; while a later step waits for its turn, the job is under way: PROGRESS."""
        step = self.current
        return states.PROGRESS if step.position and step.state == states.PENDING else step.state

    @property
    def unfinished(self) -> bool:
        """Return whether any step has yet to end."""
        return self.state in states.UNFINISHED

    @property
    def finished_at(self) -> datetime | None:
        """The time at which the last step ended; None before."""
        return None if self.unfinished else self.current.finished_at

    @property
    def changed_at(self) -> datetime:
        """The time of the last update of any of its rows."""
        return max(step.updated_at for step in self.steps)

    @property
    def cancel_requested(self) -> bool:
        """Return whether its user asked for it to stop, and it has yet to."""
        return self.unfinished and any(step.cancel_requested_at for step in self.steps)

    @property
    def retryable(self) -> bool:
        """Return whether a new job like this may be launched from it."""
        return self.state in (states.FAILURE, states.REVOKED)

    def to_dict(self) -> dict[str, Any]:
        """The job in JSON: the root's own facts, the current step's progress and error, and all `steps`."""
        return {
            **_facts(self.root),
            "state": self.state,
            "progress": progress_of(self.current),
            "error": self.current.error if self.state != states.SUCCESS else None,
            "attempts": max(step.attempts for step in self.steps),
            "finished_at": iso(self.finished_at),
            "cancel_requested": self.cancel_requested,
            "retried_from": self.root.retried_from,
            "steps": [_facts(step) for step in self.steps],
        }


def progress_of(task: Task) -> dict[str, Any]:
    """A task's progress in JSON."""
    return {
        "current": task.current,
        "total": task.total,
        "percent": task.progress,
        "message": task.message,
    }


def find_job(task_id: str, user_id: int | None = None) -> Job | None:
    """The job that the task `task_id` is a step of, if it is `user_id`'s; any user's if that is None."""
    if not is_storable(task_id):
        return None
    root_id = sa.select(Task.root_id).where(Task.id == task_id).scalar_subquery()
    query = sa.select(Task).where(Task.root_id == root_id)
    if user_id is not None:
        query = query.where(Task.user_id == user_id)
    return next(iter(_grouped(db.session.scalars(query.order_by(Task.position)))), None)


def jobs_with_ids(root_ids: Iterable[str]) -> list[Job]:
    """The jobs with these roots, in the same order; unknown ones are left out."""
    wanted = list(root_ids)
    steps = db.session.scalars(sa.select(Task).where(Task.root_id.in_(wanted)).order_by(Task.root_id, Task.position))
    jobs = {job.id: job for job in _grouped(steps)}
    return [jobs[root_id] for root_id in wanted if root_id in jobs]


def jobs_changed_since(user_id: int, since: datetime, limit: int = 100) -> list[Job]:
    """A user's jobs of which a row changed after `since`, the latest change last, at most `limit`."""
    latest = sa.func.max(Task.updated_at)
    roots = db.session.scalars(
        sa.select(Task.root_id)
        .where(Task.user_id == user_id, Task.updated_at > since)
        .group_by(Task.root_id)
        .order_by(latest.desc())
        .limit(limit)
    ).all()
    return jobs_with_ids(reversed(roots))


def newest_jobs(user_id: int, since: datetime) -> list[Job]:
    """A user's unfinished jobs, newest first; and behind them the one that ended last, if it did after `since`."""
    own = sa.select(Task.root_id).where(Task.user_id == user_id)
    unfinished = db.session.scalars(own.where(Task.unfinished).order_by(Task.created_at.desc()))
    jobs = jobs_with_ids(dict.fromkeys(unfinished))
    ended_since = own.where(~Task.unfinished, Task.updated_at > since).order_by(Task.updated_at.desc())
    last = db.session.scalar(ended_since.where(Task.root_id.not_in([job.id for job in jobs])).limit(1))
    return jobs + (jobs_with_ids([last]) if last else [])


def _grouped(steps: Iterable[Task]) -> list[Job]:
    return [Job(list(group)) for _root_id, group in groupby(steps, key=lambda step: step.root_id)]


def _facts(task: Task) -> dict[str, Any]:
    return {
        "id": task.id,
        "name": task.name,
        "description": task.description,
        "state": task.state,
        "progress": progress_of(task),
        "result": task.result,
        "error": task.error,
        "attempts": task.attempts,
        "created_at": iso(task.created_at),
        "started_at": iso(task.started_at),
        "finished_at": iso(task.finished_at),
    }
