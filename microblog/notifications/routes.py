"""The stream of a user's events, and the same by asking."""

from __future__ import annotations

import math

from flask import Blueprint, abort, jsonify, request
from flask.typing import ResponseReturnValue
from flask_babel import gettext as _
from flask_login import current_user, login_required

from microblog.clock import utcnow
from microblog.notifications import sources
from microblog.notifications.feed import changes_since, instant
from microblog.notifications.live import topic_of
from microblog.notifications.sources import Event, Source
from microblog.notifications.stream import event_stream

bp = Blueprint("notifications", __name__)

# Seconds before its last event that a page is told of again: clocks differ, and a row may be written a while after
# the time it bears. A page leaves out what it knows.
OVERLAP = 15.0


@bp.get("/notifications")
@login_required
def poll() -> ResponseReturnValue:
    """The user's events after ``since`` (seconds since 1970; default 0), as a list.

    Further arguments name what else the page shows (see sources.py); the events of that are among them.
    """
    since = _since(request.args.get("since", "0"))
    return jsonify(_missed(sources.of_page(current_user.id, request.args), since))


@bp.get("/notifications/stream")
@login_required
def stream() -> ResponseReturnValue:
    """The user's events as they happen, after those that the page missed since ``Last-Event-ID`` or ``since``.

    Further arguments as for poll().
    """
    last_seen = request.headers.get("Last-Event-ID") or request.args.get("since")
    since = utcnow().timestamp() if last_seen is None else _since(last_seen)
    shown = sources.of_page(current_user.id, request.args)
    topics = [topic_of(current_user.id), *(topic for source in shown for topic in source.topics)]
    return event_stream(topics, lambda: _missed(shown, max(since - OVERLAP, 0.0)))


def _missed(shown: list[Source], since: float) -> list[Event]:
    """The events after `since`, oldest first: the time of the last is where a stream that is cut goes on."""
    events = changes_since(current_user.id, since)
    events += [event for source in shown for event in source.missed(since)]
    return sorted(events, key=lambda event: float(event["timestamp"]))


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
