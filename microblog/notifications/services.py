"""Write, list and mark notifications as read."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from microblog import pagination
from microblog.database import DatabaseTime, dialect_insert
from microblog.extensions import db
from microblog.notifications import unread_counts
from microblog.notifications.models import Notification
from microblog.pagination import FIRST_PAGE, Page, PageRequest

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
    """Write a notification of the kind `name` about `subject` for a user, in the caller's transaction.

    If the user already has one, the row becomes new and unread again; with `once` it is left unchanged, and None is
    returned. Pass the returned row to push() after the commit.
    """
    now = DatabaseTime()
    values = {"actor_id": actor_id, "payload": payload or {}, "timestamp": now, "updated_at": now, "read_at": None}
    key = {"user_id": user_id, "name": name, "subject": subject}
    insert = dialect_insert(db.engine, Notification).values(**key, **values)
    statement = (
        insert.on_conflict_do_nothing(index_elements=[*key])
        if once
        else insert.on_conflict_do_update(index_elements=[*key], set_=values)
    )
    query = statement.returning(Notification).execution_options(populate_existing=True)
    row: Notification | None = db.session.scalars(query).one_or_none()
    return row


def mark_notifications_read(user_id: int, *conditions: sa.ColumnElement[bool]) -> int:
    """Mark a user's rows that meet the `conditions` as read, in the caller's transaction; return their number."""
    now = DatabaseTime()
    marked = db.session.scalars(
        sa.update(Notification)
        .where(Notification.user_id == user_id, Notification.read_at.is_(None), *conditions)
        .values(read_at=now, updated_at=now)
        .returning(Notification.id)
    ).all()
    return len(marked)


def delete_notifications_by_actor(user_id: int) -> set[int]:
    """Delete all notifications of all users about actions of this user, in the caller's transaction.

    Return the ids of users with unread ones among them; push() their changed unread counts after the commit.
    """
    delete = sa.delete(Notification).where(Notification.actor_id == user_id)
    rows = db.session.execute(delete.returning(Notification.user_id, Notification.read_at))
    return {reader_id for reader_id, read_at in rows if read_at is None}


def notifications_about(name: str, subjects: Iterable[str]) -> sa.ColumnElement[bool]:
    """Return the condition for rows of the kind `name` about one of `subjects`."""
    return sa.and_(Notification.name == name, Notification.subject.in_(list(subjects)))


def notifications_of(user_id: int, page_request: PageRequest = FIRST_PAGE) -> Page[Notification]:
    """Return a page of a user's notifications, newest first. Raises InvalidKey."""
    query = sa.select(Notification).where(Notification.user_id == user_id)
    return pagination.newest_first(query, Notification.timestamp, Notification.id, page_request)


def find_notification(notification_id: int, user_id: int) -> Notification | None:
    """Return the user's notification with this id, or None."""
    query = sa.select(Notification).where(Notification.id == notification_id, Notification.user_id == user_id)
    return db.session.scalar(query)


def notifications_changed_since(user_id: int, since: datetime, limit: int = 100) -> list[Notification]:
    """Return the user's latest rows that were written or read after `since`, at most `limit`, the latest last."""
    query = sa.select(Notification).where(Notification.user_id == user_id, Notification.updated_at > since)
    latest = query.order_by(Notification.updated_at.desc(), Notification.id.desc()).limit(limit)
    return list(db.session.scalars(latest))[::-1]


@unread_counts.counts_unread(BADGE)
def unread_notification_count(user_id: int) -> int:
    """Return the number of unread rows of a user, at most unread_counts.MAX_COUNT."""
    return unread_counts.limited_count(
        sa.select(Notification.id).where(Notification.user_id == user_id, Notification.read_at.is_(None))
    )
