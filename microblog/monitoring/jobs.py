"""The jobs of all users, as operators see them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import aliased

from microblog.accounts.models import User
from microblog.extensions import db
from microblog.jobs import job as jobs
from microblog.jobs.job import Job
from microblog.taskqueue import states
from microblog.taskqueue.models import Task


def newest(
    limit: int,
    *,
    user: User | None = None,
    wanted_states: Collection[str] = (),
    name: str | None = None,
) -> list[Job]:
    """The newest jobs, at most `limit`: of `user`, in one of `wanted_states`, with a step called `name`."""
    query = sa.select(Task.id).where(Task.position == 0).order_by(Task.created_at.desc(), Task.id.desc())
    if user is not None:
        query = query.where(Task.user_id == user.id)
    if wanted_states:
        query = query.where(_state_of_job().in_(wanted_states))
        if set(wanted_states) <= set(states.UNFINISHED):  # few of many: they have an index
            query = query.where(Task.id.in_(sa.select(Task.root_id).where(Task.unfinished)))
    if name is not None:
        step = aliased(Task)
        query = query.where(sa.exists().where(step.root_id == Task.id, step.name == name))
    return jobs.with_roots(db.session.scalars(query.limit(limit)))


def _state_of_job() -> sa.ColumnElement[str]:
    """Job.state, in SQL."""
    step = aliased(Task)
    waits_for_its_turn = sa.and_(step.position > 0, step.state == states.PENDING)
    current = (
        sa.select(sa.case((waits_for_its_turn, states.PROGRESS), else_=step.state))
        .where(step.root_id == Task.id, step.state != states.SUCCESS)
        .order_by(step.position)
        .limit(1)
        .scalar_subquery()
    )
    return sa.func.coalesce(current, states.SUCCESS)


def users_of(listed: Collection[Job]) -> dict[int | None, str]:
    """The names of the users whose jobs are `listed`, by their ids."""
    ids = {job.root.user_id for job in listed}
    return {
        row.id: row.username for row in db.session.execute(sa.select(User.id, User.username).where(User.id.in_(ids)))
    }


def describe(listed: Collection[Job]) -> list[dict[str, Any]]:
    """The jobs in JSON: as their users see them, and what only operators see.

    `queue`, `worker`, `traceback`, `published_at` and `lease_expires_at` of a job are its current step's.
    """
    names = users_of(listed)
    return [_describe(job, names.get(job.root.user_id)) for job in listed]


def _describe(job: Job, username: str | None) -> dict[str, Any]:
    facts = job.to_dict()
    steps = [known | _operational(step) for known, step in zip(facts["steps"], job.steps, strict=True)]
    current = steps[job.current.position]
    of_current = ("queue", "worker", "traceback", "published_at", "lease_expires_at")
    return facts | {"user": username} | {key: current[key] for key in of_current} | {"steps": steps}


def _operational(step: Task) -> dict[str, Any]:
    return {
        "position": step.position,
        "queue": step.queue,
        "worker": step.worker,
        "crashes": step.crashes,
        "args": step.signature.get("args"),
        "kwargs": step.signature.get("kwargs"),
        "traceback": step.traceback,
        "published_at": step.published_at,
        "eta": step.eta,
        "lease_expires_at": step.lease_expires_at,
        "cancel_requested_at": step.cancel_requested_at,
        "updated_at": step.updated_at,
    }
