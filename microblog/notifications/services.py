"""Write, list and mark notifications as read."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from microblog import pagination
from microblog.clock import utcnow
from microblog.database import dialect_insert
from microblog.extensions import db
from microblog.notifications import unread_counts
from microblog.notifications.models import Notification
from microblog.pagination import Page

BADGE = "notifications"


def notify(
    user_id: int,
    name: str,
    subject: str,
    *,
    actor_id: int | None = None,
    payload: dict[str, Any] | None = None,
    once: bool = False,
) -> Notification | None:
    """Tell a user that something of the kind `name` happened to `subject`, in the caller's transaction.

    If the user was told before, the row becomes unread and new again; or, where that shall be said only `once`, it is
    left as it is, and None is returned. push() what is returned after the commit.
    """
    now = utcnow()
    happened = {"actor_id": actor_id, "payload": payload or {}, "timestamp": now, "updated_at": now, "read_at": None}
    key = {"user_id": user_id, "name": name, "subject": subject}
    insert = dialect_insert(db.engine, Notification).values(**key, **happened)
    statement = (
        insert.on_conflict_do_nothing(index_elements=[*key])
        if once
        else insert.on_conflict_do_update(index_elements=[*key], set_=happened)
    )
    query = statement.returning(Notification).execution_options(populate_existing=True)
    row: Notification | None = db.session.scalars(query).one_or_none()
    return row


def mark_notifications_read(user_id: int, *conditions: sa.ColumnElement[bool]) -> int:
    """Mark a user's rows as read, those that meet the `conditions`, in the caller's transaction; returns how many."""
    now = utcnow()
    marked = db.session.scalars(
        sa.update(Notification)
        .where(Notification.user_id == user_id, Notification.read_at.is_(None), *conditions)
        .values(read_at=now, updated_at=now)
        .returning(Notification.id)
    ).all()
    return len(marked)


def forget_actor(user_id: int) -> set[int]:
    """Forget, for everybody, what this user did, in the caller's transaction; push() to whose ids are returned.

    These are they who had not read of it yet: their badges are others now.
    """
    forgotten = sa.delete(Notification).where(Notification.actor_id == user_id)
    rows = db.session.execute(forgotten.returning(Notification.user_id, Notification.read_at))
    return {reader_id for reader_id, read_at in rows if read_at is None}


def notifications_about(name: str, subjects: Iterable[str]) -> sa.ColumnElement[bool]:
    """The condition that a row is of the kind `name`, and about one of `subjects`."""
    return sa.and_(Notification.name == name, Notification.subject.in_(list(subjects)))


def notifications_of(
    user_id: int, before: str | None = None, after: str | None = None, size: int | None = None
) -> Page[Notification]:
    """A page of what a user was told, the newest first; `before` and `after` are paging keys.

    It has at most `size` rows, or ``POSTS_PER_PAGE``. Raises InvalidKey.
    """
    query = sa.select(Notification).where(Notification.user_id == user_id)
    return pagination.newest_first(query, Notification.timestamp, Notification.id, size, before, after)


def find_notifications(notification_id: int, user_id: int) -> Notification | None:
    """The row of that id, if it is the user's."""
    query = sa.select(Notification).where(Notification.id == notification_id, Notification.user_id == user_id)
    return db.session.scalar(query)


def notifications_changed_since(user_id: int, since: datetime, limit: int = 100) -> list[Notification]:
    """A user's rows that were written or read after `since`, the latest last, at most `limit`."""
    query = sa.select(Notification).where(Notification.user_id == user_id, Notification.updated_at > since)
    latest = query.order_by(Notification.updated_at.desc(), Notification.id.desc()).limit(limit)
    return list(db.session.scalars(latest))[::-1]


@unread_counts.counts_unread(BADGE)
def unread_notification_count(user_id: int) -> int:
    """Return the number of unread rows of a user, at most unread_counts.MOST."""
    return unread_counts.limited_count(
        sa.select(Notification.id).where(Notification.user_id == user_id, Notification.read_at.is_(None))
    )
