"""Record when each user last opened a page, to the minute."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

import sqlalchemy as sa
from flask import Flask, Response, current_app, request, session
from flask_login import current_user

from microblog.accounts.models import User
from microblog.clock import utcnow
from microblog.database import LogDatabaseErrors
from microblog.extensions import db

logger = logging.getLogger(__name__)

UPDATE_INTERVAL = timedelta(minutes=1)


def init_app(app: Flask) -> None:
    """Record the visit of a signed-in user after each page has been sent."""
    app.after_request(_record_visit)


def record_last_seen(user_id: int, now: datetime) -> None:
    """Store `now` as the time of a user's last visit, unless one was stored within UPDATE_INTERVAL, and commit.

    A database error is logged: the user's next page is recorded.
    """
    outdated = sa.or_(User.last_seen_at.is_(None), User.last_seen_at <= now - UPDATE_INTERVAL)
    with LogDatabaseErrors(logger, "this visit of user %d is not recorded", user_id):
        db.session.execute(sa.update(User).where(User.id == user_id, outdated).values(last_seen_at=now))
        db.session.commit()
    db.session.rollback()


def _record_visit(response: Response) -> Response:
    if not _is_page(response) or "_user_id" not in session or not current_user.is_authenticated:
        return response
    app, user_id, now = current_app._get_current_object(), current_user.id, utcnow()  # type: ignore[attr-defined]
    # Checked before the UPDATE: on SQLite even an UPDATE that changes nothing waits for other writers.
    if current_user.last_seen_at is None or current_user.last_seen_at <= now - UPDATE_INTERVAL:

        @response.call_on_close
        def record_after_sending() -> None:
            with app.app_context():
                record_last_seen(user_id, now)

    return response


def _is_page(response: Response) -> bool:
    """Return whether this is a page that a user opened, and not an event stream or the response to a script."""
    opened = request.method == "GET" and request.headers.get("Sec-Fetch-Mode", "navigate") == "navigate"
    return opened and response.status_code == 200 and response.mimetype == "text/html"
