"""Record when each user last opened a page, to the minute."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

import sqlalchemy as sa
from flask import Flask, Response, current_app, request, session
from flask_login import current_user
from sqlalchemy.exc import SQLAlchemyError

from microblog.accounts.models import User
from microblog.clock import utcnow
from microblog.extensions import db

NOTED_EVERY = timedelta(minutes=1)

_log = logging.getLogger(__name__)


def init_app(app: Flask) -> None:
    """Note who opens a page, once the page is sent."""
    app.after_request(_note_reader)


def record_last_seen(user_id: int, now: datetime) -> None:
    """Keep that a user was here `now`, unless that was noted within NOTED_EVERY; commits.

    A database that is away is no error: whoever stays is noted with their next page.
    """
    long_ago = sa.or_(User.last_seen_at.is_(None), User.last_seen_at <= now - NOTED_EVERY)
    try:
        db.session.execute(sa.update(User).where(User.id == user_id, long_ago).values(last_seen_at=now))
        db.session.commit()
    except SQLAlchemyError as error:
        db.session.rollback()
        _log.warning("it is not noted that user %d was here: %s", user_id, error)


def _note_reader(response: Response) -> Response:
    if not _is_page(response) or "_user_id" not in session or not current_user.is_authenticated:
        return response
    app, user_id, now = current_app._get_current_object(), current_user.id, utcnow()  # type: ignore[attr-defined]
    # Looked at before it is written: on SQLite even an UPDATE that changes nothing would wait for other writers.
    if current_user.last_seen_at is None or current_user.last_seen_at <= now - NOTED_EVERY:

        @response.call_on_close
        def note_after_sending() -> None:
            with app.app_context():
                record_last_seen(user_id, now)

    return response


def _is_page(response: Response) -> bool:
    """Return whether a reader opened this page, as opposed to an event stream or a request of a script."""
    opened = request.method == "GET" and request.headers.get("Sec-Fetch-Mode", "navigate") == "navigate"
    return opened and response.status_code == 200 and response.mimetype == "text/html"
