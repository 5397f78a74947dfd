"""The end of a user's jobs, when the user goes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, cast

import sqlalchemy as sa
from flask import current_app
from sqlalchemy.orm import aliased

from microblog.clock import utcnow
from microblog.extensions import db
from microblog.jobs import control
from microblog.jobs import job as jobs
from microblog.taskqueue.models import Task
from microblog.taskqueue.signals import rows_needed_since

BATCH = 500  # rows that one transaction deletes
# What a row tells of its user; name, state, times and worker are what statistics are made of.
_FORGOTTEN: dict[str, Any] = {
    "user_id": None,
    "description": Task.name,
    "message": "",
    "result": None,
    "error": None,
    "traceback": None,
    "signature": {},
}


def cancel_all(user_id: int) -> bool:
    """Ask for every unfinished job of a user to be cancelled; returns whether all of them have ended."""
    unfinished = sa.select(Task.root_id).where(Task.user_id == user_id, Task.unfinished).distinct()
    for job in jobs.with_roots(db.session.scalars(unfinished).all()):
        try:
            control.cancel(job)
        except control.NotNow:
            continue  # it has ended meanwhile
    return not db.session.scalars(unfinished.limit(1)).all()


def forget_all(user_id: int) -> Iterator[int]:
    """Delete the rows of a user's jobs, a batch at a time; yields how many went, after the commit of each batch.

    A job that statistics still need keeps its rows, without its user and without a word of what it was about; it is
    purged with all others of its age.
    """
    needed = [since for _receiver, since in rows_needed_since.send(current_app.extensions["celery"])]
    old = _ended_before(user_id, min([utcnow(), *needed])).limit(BATCH)
    recent = sa.select(Task.id).where(Task.user_id == user_id).limit(BATCH)
    for statement in (
        sa.delete(Task).where(Task.root_id.in_(old)),
        sa.update(Task).where(Task.id.in_(recent)).values(_FORGOTTEN),
    ):
        while found := cast("sa.CursorResult[Any]", db.session.execute(statement)).rowcount:
            db.session.commit()
            yield found
        db.session.rollback()


def _ended_before(user_id: int, before: datetime) -> sa.Select[str]:
    root, step = aliased(Task), aliased(Task)
    wanted = sa.exists().where(
        step.root_id == root.root_id, sa.or_(step.finished_at.is_(None), step.finished_at >= before)
    )
    return sa.select(root.root_id).where(root.user_id == user_id, root.position == 0, ~wanted)
