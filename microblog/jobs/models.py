"""A job: the Task rows that share a root, seen as one object."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any

import sqlalchemy as sa

from microblog import pagination
from microblog.clock import iso
from microblog.extensions import db
from microblog.pagination import FIRST_PAGE, Page, PageRequest
from microblog.taskqueue import states
from microblog.taskqueue.models import Task
from microblog.validators import is_storable


@dataclass(frozen=True)
class Job:
    """The steps of one job, in order. The first is the root; its id is the id of the job."""

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
        """The step that determines the state of the job: the first that has not succeeded, otherwise the last."""
        return next((step for step in self.steps if step.state != states.SUCCESS), self.steps[-1])

    @property
    def state(self) -> str:
        """The state of the current step, or PROGRESS while a later step is PENDING."""
        step = self.current
        return states.PROGRESS if step.position and step.state == states.PENDING else step.state

    @property
    def unfinished(self) -> bool:
        """Return whether any step is unfinished."""
        return self.state in states.UNFINISHED

    @property
    def finished_at(self) -> datetime | None:
        """The time at which the job ended, or None if it is unfinished."""
        return None if self.unfinished else self.current.finished_at

    @property
    def changed_at(self) -> datetime:
        """The time of the last update of any of its rows."""
        return max(step.updated_at for step in self.steps)

    @property
    def cancel_requested(self) -> bool:
        """Return whether cancellation was requested and the job is unfinished."""
        return self.unfinished and any(step.cancel_requested_at for step in self.steps)

    @property
    def retryable(self) -> bool:
        """Return whether the job may be retried as a new job."""
        return self.state in (states.FAILURE, states.REVOKED)

    def to_dict(self) -> dict[str, Any]:
        """Return the job for JSON: the fields of the root, progress and error of the current step, and all `steps`."""
        return {
            **_step_to_dict(self.root),
            "state": self.state,
            "progress": progress_of(self.current),
            "error": self.current.error if self.state != states.SUCCESS else None,
            "attempts": max(step.attempts for step in self.steps),
            "finished_at": iso(self.finished_at),
            "cancel_requested": self.cancel_requested,
            "retried_from": self.root.retried_from,
            "steps": [_step_to_dict(step) for step in self.steps],
        }


def progress_of(step: Task) -> dict[str, Any]:
    """Return a step's progress for JSON."""
    return {
        "current": step.current,
        "total": step.total,
        "percent": step.progress,
        "message": step.message,
    }


def find_job(step_id: str, user_id: int | None = None) -> Job | None:
    """Return the job with the step `step_id` if it belongs to the user; a `user_id` of None means any user."""
    if not is_storable(step_id):
        return None
    root_id = sa.select(Task.root_id).where(Task.id == step_id).scalar_subquery()
    query = sa.select(Task).where(Task.root_id == root_id)
    if user_id is not None:
        query = query.where(Task.user_id == user_id)
    return next(iter(_grouped(db.session.scalars(query.order_by(Task.position)))), None)


def find_jobs_of_steps(step_ids: Collection[str]) -> dict[str, Job]:
    """Return the job of each of these steps, by the id of the step, without unknown ones."""
    ids = [step_id for step_id in step_ids if is_storable(step_id)]
    root_ids = sa.select(Task.root_id).where(Task.id.in_(ids))
    steps = db.session.scalars(sa.select(Task).where(Task.root_id.in_(root_ids)).order_by(Task.root_id, Task.position))
    jobs = {step.id: job for job in _grouped(steps) for step in job.steps}
    return {step_id: jobs[step_id] for step_id in ids if step_id in jobs}


def jobs_with_ids(root_ids: Iterable[str]) -> list[Job]:
    """Return the jobs with these root ids, in the same order, without unknown ones."""
    ids = list(root_ids)
    steps = db.session.scalars(sa.select(Task).where(Task.root_id.in_(ids)).order_by(Task.root_id, Task.position))
    jobs = {job.id: job for job in _grouped(steps)}
    return [jobs[root_id] for root_id in ids if root_id in jobs]


def jobs_of_user(user_id: int, page_request: PageRequest = FIRST_PAGE) -> Page[Job]:
    """Return a page of a user's jobs, newest first. Raises InvalidKey."""
    roots = sa.select(Task).where(Task.user_id == user_id, Task.position == 0)
    page = pagination.newest_first(roots, Task.created_at, Task.id, page_request)
    return Page(jobs_with_ids(root.id for root in page.items), page.next, page.previous)


def jobs_changed_since(user_id: int, since: datetime, limit: int = 100) -> list[Job]:
    """Return a user's jobs with a row that changed after `since`, the latest change last, at most `limit`."""
    latest = sa.func.max(Task.updated_at)
    roots = db.session.scalars(
        sa.select(Task.root_id)
        .where(Task.user_id == user_id, Task.updated_at > since)
        .group_by(Task.root_id)
        .order_by(latest.desc())
        .limit(limit)
    ).all()
    return jobs_with_ids(reversed(roots))


def newest_jobs(user_id: int, since: datetime | sa.ColumnElement[datetime]) -> list[Job]:
    """Return a user's unfinished jobs, newest first, followed by the last one that ended, if after `since`."""
    own = sa.select(Task.root_id).where(Task.user_id == user_id)
    unfinished = db.session.scalars(own.where(Task.unfinished).order_by(Task.created_at.desc()))
    jobs = jobs_with_ids(dict.fromkeys(unfinished))
    ended_since = own.where(~Task.unfinished, Task.updated_at > since).order_by(Task.updated_at.desc())
    last = db.session.scalar(ended_since.where(Task.root_id.not_in([job.id for job in jobs])).limit(1))
    return jobs + (jobs_with_ids([last]) if last else [])


def _grouped(steps: Iterable[Task]) -> list[Job]:
    return [Job(list(group)) for _root_id, group in groupby(steps, key=lambda step: step.root_id)]


def _step_to_dict(step: Task) -> dict[str, Any]:
    return {
        "id": step.id,
        "name": step.name,
        "description": step.description,
        "state": step.state,
        "progress": progress_of(step),
        "result": step.result,
        "error": step.error,
        "attempts": step.attempts,
        "created_at": iso(step.created_at),
        "started_at": iso(step.started_at),
        "finished_at": iso(step.finished_at),
    }
