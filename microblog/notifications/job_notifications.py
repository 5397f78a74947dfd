"""Write a notification when a job ends, if a renderer is registered for its first task."""

from __future__ import annotations

import logging

import sqlalchemy as sa
from flask import Flask
from sqlalchemy.orm import aliased

from microblog.extensions import db
from microblog.notifications import renderers
from microblog.notifications.push import push
from microblog.notifications.services import notify
from microblog.taskqueue import states
from microblog.taskqueue.interface import TaskChange
from microblog.taskqueue.models import Task

logger = logging.getLogger(__name__)

# Whoever cancelled a job knows.
_WORTH_TELLING = (states.SUCCESS, states.FAILURE)


def notify_job_ended(app: Flask, change: TaskChange) -> None:
    """Tell a user that their job is done or has failed, once.

    Never raises: it is called where a state is stored. If the database is away, the job itself is all that tells.
    """
    if change.user_id is None or change.state not in _WORTH_TELLING:
        return
    if change.position == 0 and change.name is not None and not renderers.has_renderer(change.name):
        return  # most tasks: they cost the database no question
    try:
        name = _ended_job(app, change)
        if name is not None and renderers.has_renderer(name):
            with app.app_context():
                payload = {"state": change.state}
                row = notify(change.user_id, name, change.root_id, payload=payload, once=True)
                db.session.commit()
                if row is not None:
                    push(change.user_id, row)
    except Exception:
        logger.exception("the end of %s is not among its user's notifications", change.root_id)


def _ended_job(app: Flask, change: TaskChange) -> str | None:
    """The name of the job's first task; None if a step that succeeded is not the last one."""
    root, later = aliased(Task), aliased(Task)
    query = sa.select(root.name).where(root.id == change.root_id)
    if change.state == states.SUCCESS:
        query = query.where(~sa.exists().where(later.root_id == root.id, later.position > change.position))
    # Apart from any session, and from the transaction of the task that has just ended.
    found = app.extensions["celery"].executor.execute(query)
    return str(found[0].name) if found else None
