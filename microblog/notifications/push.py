"""Telling a user's open pages of rows that were written or read, and of the numbers that follow from it."""

from __future__ import annotations

import sqlalchemy as sa
from flask import current_app

from microblog.extensions import db
from microblog.notifications import rows as notices
from microblog.notifications.feed import event_of_row, events_of_badges
from microblog.notifications.live import publish, telling, topic_of
from microblog.notifications.models import Notification


@telling()
def push(user_id: int, *rows: Notification | None) -> None:
    """Send `rows` (None is left out) and all of a user's badges to their open pages. Call it after the commit.

    Take `user_id` before the commit: a user who is read anew for it may find the database away.
    """
    told = [event_of_row(row) for row in rows if row is not None]
    for event in told + events_of_badges(user_id):
        publish(current_app, [topic_of(user_id)], event)


def read(user_id: int, *conditions: sa.ColumnElement[bool]) -> None:
    """Mark a user's rows as read, those that meet the `conditions`, commit that, and tell their open pages."""
    if notices.mark_read(user_id, *conditions):
        db.session.commit()
        push(user_id)
