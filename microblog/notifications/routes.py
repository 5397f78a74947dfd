"""The stream of a user's events, and the same by asking."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import orjson
from flask import Blueprint, Response, abort, current_app, jsonify, request
from flask.typing import ResponseReturnValue
from flask_babel import gettext as _
from flask_login import current_user, login_required

from microblog.clock import utcnow
from microblog.extensions import db
from microblog.notifications.feed import changes_since, instant
from microblog.notifications.live import Hub, Subscription

bp = Blueprint("notifications", __name__)

RECONNECT_AFTER = 2000  # milliseconds
# Seconds before its last event that a page is told of again: clocks differ, and a row may be written a while after
# the time it bears. A page leaves out what it knows.
OVERLAP = 15.0


@bp.get("/notifications")
@login_required
def poll() -> ResponseReturnValue:
    """The user's events after ``since`` (seconds since 1970; default 0), as a list."""
    return jsonify(changes_since(current_user.id, _since(request.args.get("since", "0"))))


@bp.get("/notifications/stream")
@login_required
def stream() -> ResponseReturnValue:
    """The user's events as they happen, after those that the page missed since ``Last-Event-ID`` or ``since``."""
    last_seen = request.headers.get("Last-Event-ID") or request.args.get("since")
    since = utcnow().timestamp() if last_seen is None else _since(last_seen)
    hub: Hub = current_app.extensions["hub"]
    subscription = hub.join(current_user.id)  # before the replay, so that nothing falls between the two
    try:
        missed = changes_since(current_user.id, since - OVERLAP)
    except BaseException:
        subscription.close()
        raise
    db.session.remove()  # an open page must not hold a database connection
    response = Response(_frames(subscription, missed, current_app.config), mimetype="text/event-stream")
    response.call_on_close(subscription.close)
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Accel-Buffering"] = "no"
    return response


def _frames(subscription: Subscription, missed: list[dict[str, Any]], config: dict[str, Any]) -> Iterator[bytes]:
    yield b"retry: %d\n\n" % RECONNECT_AFTER
    for event in missed:
        yield _frame(event)
    for event_or_none in subscription.read(heartbeat=config["STREAM_HEARTBEAT"], lifetime=config["STREAM_LIFETIME"]):
        yield b": still here\n\n" if event_or_none is None else _frame(event_or_none)


def _frame(event: dict[str, Any]) -> bytes:
    identity = b"id: %.6f\n" % event["timestamp"] if "timestamp" in event else b""
    return identity + b"data: " + orjson.dumps(event) + b"\n\n"


def _since(text: str) -> float:
    """Seconds since 1970 as a page gave them; anything else is a bad request."""
    try:
        seconds = float(text)
        instant(seconds)
    except ValueError:
        seconds = math.nan
    if math.isnan(seconds):
        abort(400, _("“since” must be a time in seconds since 1970."))
    return seconds
