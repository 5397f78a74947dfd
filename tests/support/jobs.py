"""Jobs of the tests: launched, looked at, made older, left alone by a worker that died, or just there as rows."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from flask import Flask

from microblog.accounts.models import User
from microblog.clock import utcnow
from microblog.extensions import db
from microblog.jobs import job as jobs
from microblog.jobs.job import Job
from microblog.taskqueue import claim as claims
from microblog.taskqueue.launch import launch
from microblog.taskqueue.models import Task
from microblog.taskqueue.states import FINISHED
from tests.support.services import wait_for


def start(*steps: Any) -> str:
    """Launch a job; returns its id."""
    root = launch(steps)
    db.session.commit()
    return root.id


def start_for(user: User, name: str = "noop") -> str:
    """Launch a job of one step for a user; returns its id."""
    task = user.launch_task(name, f"{name} of {user.username}")
    db.session.commit()
    return task.id


def rows_of(root_id: str) -> list[Task]:
    """A job's rows as they are now, in order."""
    db.session.rollback()
    query = sa.select(Task).where(Task.root_id == root_id).order_by(Task.position)
    return list(db.session.scalars(query.execution_options(populate_existing=True)))


def states(root_id: str) -> list[str]:
    return [row.state for row in rows_of(root_id)]


def state_of(task_id: str) -> str:
    """One task's, as it is now."""
    db.session.rollback()
    return db.session.scalars(sa.select(Task.state).where(Task.id == task_id)).one()


def only_job(user: User) -> Job:
    """The one job that a user has started lately, as it is now."""
    db.session.rollback()
    [job] = jobs.newest(user.id, since=utcnow() - timedelta(hours=1))
    return job


def ended(user: User) -> Job:
    """The same, as soon as it has ended."""
    wait_for(lambda: not only_job(user).unfinished, what="the job ends")
    return only_job(user)


def make_older(root_id: str, **ages: float) -> None:
    """Move times of a job's rows into the past, each by so many seconds."""
    past = {name: utcnow() - timedelta(seconds=age) for name, age in ages.items()}
    db.session.execute(sa.update(Task).where(Task.root_id == root_id).values(**past))
    db.session.commit()


def crash(app: Flask, task_id: str) -> None:
    """A worker claims the task and is never heard of again."""
    held = claims.claim(app.extensions["celery"].rows, task_id, worker="gone@host", lease=30, max_crashes=3)
    assert held is not None
    make_older(task_id, lease_expires_at=1)


def store_outcome(app: Flask, task_id: str, state: str, result: Any, traceback: str | None = None) -> None:
    """An outcome is in Redis; the row knows nothing of it."""
    backend = app.extensions["celery"].backend
    meta = {"status": state, "result": result, "traceback": traceback}
    backend.client.set(backend.get_key_for_task(task_id), backend.encode(meta))


def make_job(user: User | None, *step_states: str, seconds_ago: float = 0, **columns: Any) -> str:
    """The id of an export whose steps are in these states."""
    root = f"{user.username if user else 'system'}-{'-'.join(step_states)}-{seconds_ago}".lower()
    at = utcnow() - timedelta(seconds=seconds_ago)
    for position, state in enumerate(step_states):
        name = columns.get("name", ("export_posts", "email_export")[position])
        args = [user.id] if user and not position else []
        facts = {
            "id": f"{root}-{position}" if position else root,
            "root_id": root,
            "position": position,
            "user_id": user.id if user else None,
            "name": name,
            "state": state,
            "queue": "exports",
            "signature": {"task": name, "args": args, "kwargs": {}, "options": {}},
            "created_at": at,
            "updated_at": at,
            "finished_at": at if state in FINISHED else None,
        }
        db.session.add(Task(**facts | columns))
    db.session.commit()
    return root
