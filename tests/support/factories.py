"""Factories of posts, and of jobs: launched, finished, aged, abandoned by a dead worker, or rows without a message."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from celery import chain
from flask import Flask

from microblog.accounts.models import User
from microblog.clock import utcnow
from microblog.database import database_time
from microblog.extensions import db
from microblog.jobs.models import Job, newest_jobs
from microblog.posts.models import Post
from microblog.taskqueue import transitions
from microblog.taskqueue.launch import launch
from microblog.taskqueue.models import Task
from microblog.taskqueue.states import FINISHED
from tests.support.servers import wait_for

BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)


def write_posts(user: User, bodies: Sequence[str]) -> None:
    """Insert posts, one for each hour since BEGINNING, the latest first, so that their ids are in another order."""
    times = [BEGINNING + timedelta(hours=n) for n in range(len(bodies))]
    for body, timestamp in reversed(list(zip(bodies, times, strict=True))):
        db.session.add(Post(user_id=user.id, body=body, timestamp=timestamp))
    db.session.commit()


def add_task(task_id: str, state: str, seconds_ago: float = 0, name: str = "noop", **columns: Any) -> None:
    """Create the row of a task without a message, by default the only one of its job.

    It was created `seconds_ago`, and if `state` is terminal, it ended at the same time.
    """
    at = utcnow() - timedelta(seconds=seconds_ago)
    values: dict[str, Any] = {
        "id": task_id,
        "root_id": task_id,
        "name": name,
        "queue": "default",
        "state": state,
        "signature": {"task": name, "args": [], "kwargs": {}, "options": {"task_id": task_id}},
        "created_at": at,
        "updated_at": at,
        "finished_at": at if state in FINISHED else None,
    }
    db.session.add(Task(**values | columns))
    db.session.commit()


def make_job(user: User | None, *step_states: str, seconds_ago: float = 0, **columns: Any) -> str:
    """Create the rows of an export whose steps are in these states, and return its id."""
    root = f"{user.username if user else 'system'}-{'-'.join(step_states)}-{seconds_ago}".lower()
    for position, state in enumerate(step_states):
        name = columns.get("name", ("export_posts", "email_export")[position])
        args = [user.id] if user and not position else []
        own: dict[str, Any] = {
            "root_id": root,
            "position": position,
            "user_id": user.id if user else None,
            "name": name,
            "queue": "exports",
            "signature": {"task": name, "args": args, "kwargs": {}, "options": {}},
        }
        add_task(f"{root}-{position}" if position else root, state, seconds_ago, **own | columns)
    return root


def make_timed_job(
    *steps: tuple[str, str],
    at: datetime | None = None,
    wait: float | None = 1.0,
    run: float = 2.0,
    **columns: Any,
) -> str:
    """Create the rows of a job whose consecutive steps have these names and states, and return its id.

    The first step ended at `at`. Each step waited `wait` seconds (None: it never started) and ran `run` seconds.
    """
    root_id = str(uuid.uuid4())
    end = at or utcnow()
    created_at = end - timedelta(seconds=(wait or 0) + run)
    for position, (name, state) in enumerate(steps):
        started_at = end - timedelta(seconds=run) if wait is not None else None
        own: dict[str, Any] = {
            "name": name,
            "root_id": root_id,
            "position": position,
            "created_at": created_at,
            "started_at": started_at,
            "finished_at": end if state in FINISHED else None,
            "attempts": int(wait is not None),
        }
        add_task(str(uuid.uuid4()) if position else root_id, state, **own | columns)
        end += timedelta(seconds=(wait or 0) + run)
    return root_id


def start(*steps: Any) -> str:
    """Launch a job and return its id."""
    root = launch(chain(*steps))
    db.session.commit()
    return root.id


def start_job_for(user: User, name: str = "noop") -> str:
    """Launch a job of one step for a user and return its id."""
    task = user.launch_task(name, f"{name} of {user.username}")
    db.session.commit()
    return task.id


def rows_of(root_id: str) -> list[Task]:
    """Return the current rows of a job, in order."""
    db.session.rollback()
    query = sa.select(Task).where(Task.root_id == root_id).order_by(Task.position)
    return list(db.session.scalars(query.execution_options(populate_existing=True)))


def row_of(task_id: str) -> Task:
    """Return the current row of a task."""
    db.session.rollback()
    return db.session.get_one(Task, task_id, populate_existing=True)


def states_of(root_id: str) -> list[str]:
    return [row.state for row in rows_of(root_id)]


def state_of(task_id: str) -> str:
    """Return the current state of a task."""
    db.session.rollback()
    return db.session.scalars(sa.select(Task.state).where(Task.id == task_id)).one()


def only_job(user: User) -> Job:
    """Return the only job that a user has started in the last hour, in its current state."""
    db.session.rollback()
    [job] = newest_jobs(user.id, since=utcnow() - timedelta(hours=1))
    return job


def ended(user: User) -> Job:
    """Wait until the only job of a user has ended, and return it."""
    wait_for(lambda: not only_job(user).unfinished, what="the job ends")
    return only_job(user)


def make_older(root_id: str, **ages: float) -> None:
    """Set time columns of a job's rows to the given numbers of seconds before now."""
    now = database_time(db.session)
    past = {name: now - timedelta(seconds=age) for name, age in ages.items()}
    db.session.execute(sa.update(Task).where(Task.root_id == root_id).values(**past))
    db.session.commit()


def crash(app: Flask, task_id: str) -> None:
    """Claim the task for a worker that has died, with an expired lease."""
    claim = transitions.claim_task(
        app.extensions["celery"].executor, task_id, worker="gone@host", lease=30, max_crashes=3
    )
    assert claim is not None
    make_older(task_id, lease_expires_at=1)


@contextlib.contextmanager
def run_of(app: Flask, task_id: str, name: str, *args: Any, chain: Sequence[Any] = ()) -> Iterator[Any]:
    """A run of a launched task in this process, from its claim; yields the task, whose request is that of the run."""
    task = app.extensions["celery"].tasks[name]
    request = {"args": list(args), "kwargs": {}, "chain": list(chain), "called_directly": False}
    task.push_request(id=task_id, hostname="one@host", **request)
    try:
        task.before_start(task_id, args, {})
        yield task
    finally:
        task.pop_request()


def store_result_in_redis(app: Flask, task_id: str, state: str, result: Any, traceback: str | None = None) -> None:
    """Store the result of a task in Redis without updating its row."""
    backend = app.extensions["celery"].backend
    meta = {"status": state, "result": result, "traceback": traceback}
    backend.client.set(backend.get_key_for_task(task_id), backend.encode(meta))
