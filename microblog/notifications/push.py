"""Send written or read notifications, and the new unread counts, to a user's open pages."""

from __future__ import annotations

import sqlalchemy as sa
from flask import current_app

from microblog.extensions import db
from microblog.notifications.models import Notification
from microblog.notifications.pubsub import ignore_unavailable_database, publish, user_topic
from microblog.notifications.replay import event_from_notification, unread_count_events
from microblog.notifications.services import mark_notifications_read


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
