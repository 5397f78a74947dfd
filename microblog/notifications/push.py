"""Send notifications and unread counts to open pages, and notify the users whose jobs have ended."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

import sqlalchemy as sa
from flask import Flask, current_app
from sqlalchemy.orm import aliased

from microblog.database import database_time
from microblog.extensions import SiteRedis, db
from microblog.notifications import renderers
from microblog.notifications.models import Notification
from microblog.notifications.pubsub import ignore_unavailable_database, publish, user_topic
from microblog.notifications.replay import event_from_notification, unread_count_events
from microblog.notifications.services import mark_notifications_read, notify
from microblog.taskqueue import states
from microblog.taskqueue.interface import TaskChange, task_changed
from microblog.taskqueue.models import Task

logger = logging.getLogger(__name__)

LOOKED_UNTIL_KEY = "ends-announced-until"  # the time of the last search for ends that were not announced
OVERLAP = timedelta(minutes=10)  # of two such searches: a row may be committed some time after the time in it
LONGEST_LOOK_BACK = timedelta(days=7)  # if Redis has lost that time
END_GRACE = timedelta(seconds=10)  # for a process that is about to notify the user
# A cancellation was requested, so it needs no notification.
_NOTIFIED_STATES = (states.SUCCESS, states.FAILURE)


@ignore_unavailable_database()
def push(user_id: int, *rows: Notification | None) -> None:
    """Send `rows` (None is ignored) and all of a user's unread counts to their open pages. Call it after the commit.

    Read `user_id` before the commit: reloading the user for it fails if the database has become unavailable.
    """
    events = [event_from_notification(row) for row in rows if row is not None]
    for event in events + unread_count_events(user_id):
        publish(current_app, [user_topic(user_id)], event)


def mark_read_and_push(user_id: int, *conditions: sa.ColumnElement[bool]) -> None:
    """Mark a user's rows that meet the `conditions` as read, commit, and send the unread counts to their open pages."""
    if mark_notifications_read(user_id, *conditions):
        db.session.commit()
        push(user_id)


def notify_job_ended(app: Flask, change: TaskChange) -> None:
    """Notify a user, once, that their job has succeeded or failed.

    Never raises, since it is called where a state is stored. If the database is unavailable, no notification is
    written; the job itself still shows its state.
    """
    if change.user_id is None or change.state not in _NOTIFIED_STATES:
        return
    if change.position == 0 and change.name is not None and not renderers.has_renderer(change.name):
        return  # most tasks end here, without a query
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
        logger.exception("the user of job %s is not notified of its end", change.root_id)


def notify_missed_ends(app: Flask) -> None:
    """Announce the ends of users' jobs whose process was killed before it did so.

    Looks at what has ended since its last call. Raises redis.exceptions.RedisError.
    """
    client: SiteRedis = app.extensions["redis"]
    now = database_time(db.session)
    looked_until = client.get(client.key(LOOKED_UNTIL_KEY))
    since = datetime.fromisoformat(str(looked_until)) - OVERLAP if looked_until else now - LONGEST_LOOK_BACK
    root, step, later = aliased(Task), aliased(Task), aliased(Task)
    notified = sa.exists().where(
        Notification.user_id == root.user_id, Notification.name == root.name, Notification.subject == root.id
    )
    last = ~sa.exists().where(later.root_id == root.id, later.position > step.position)
    ended = sa.or_(step.state == states.FAILURE, sa.and_(step.state == states.SUCCESS, last))
    query = (
        sa.select(step)
        .join(root, root.id == step.root_id)
        .where(step.finished_at.between(since, now - END_GRACE), ended)
        .where(root.user_id.is_not(None), root.name.in_(renderers.kinds()), ~notified)
    )
    missed = [
        TaskChange(row.id, row.root_id, row.position, row.user_id, row.state, None, row.updated_at, row.name)
        for row in db.session.scalars(query)
    ]
    db.session.rollback()  # each notification is stored by the same connection
    for change in missed:
        task_changed.send(app.extensions["celery"], change=change)
    if not missed or db.session.scalar(query.limit(1)) is None:  # else the next search begins at the same time
        client.set(client.key(LOOKED_UNTIL_KEY), now.isoformat())


def _ended_job(app: Flask, change: TaskChange) -> str | None:
    """Return the name of the job's first task, or None if the step succeeded and is not the last one."""
    root, later = aliased(Task), aliased(Task)
    query = sa.select(root.name).where(root.id == change.root_id)
    if change.state == states.SUCCESS:
        query = query.where(~sa.exists().where(later.root_id == root.id, later.position > change.position))
    # Outside of any session and of the transaction of the task that has just ended.
    found = app.extensions["celery"].executor.execute(query)
    return str(found[0].name) if found else None
