"""Event stream, polling, and the page of notifications."""

from __future__ import annotations

import math

from flask import Blueprint, abort, jsonify, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext as _
from flask_login import current_user, login_required

from microblog.clock import utcnow
from microblog.extensions import db
from microblog.notifications import renderers, replay
from microblog.notifications.models import Notification
from microblog.notifications.push import mark_read_and_push, push
from microblog.notifications.replay import Event, EventSource, events_since, time_from_seconds
from microblog.notifications.services import find_notifications, mark_notifications_read, notifications_of
from microblog.notifications.sse import event_stream
from microblog.validators import ID_IN_ADDRESS

bp = Blueprint("notifications", __name__)

# Seconds before its last event that a page is told of again: clocks differ, and a row may be written a while after
# the time it bears. A page leaves out what it knows.
OVERLAP = 15.0


@bp.get("/notifications")
@login_required
def poll() -> ResponseReturnValue:
    """The user's events after ``since`` (seconds since 1970; default 0), as a list.

    Further arguments name what else the page shows (see replay.py); the events of that are among them.
    """
    since = _since(request.args.get("since", "0"))
    return jsonify(_missed(replay.sources_for_page(current_user.id, request.args), since))


@bp.get("/notifications/stream")
@login_required
def stream() -> ResponseReturnValue:
    """The user's events as they happen, after those that the page missed since ``Last-Event-ID`` or ``since``.

    Further arguments as for poll().
    """
    last_seen = request.headers.get("Last-Event-ID") or request.args.get("since")
    since = utcnow().timestamp() if last_seen is None else _since(last_seen)
    shown = replay.sources_for_page(current_user.id, request.args)
    topics = [topic for source in shown for topic in source.topics]
    return event_stream(current_user.id, topics, lambda: _missed(shown, max(since - OVERLAP, 0.0)))


def _missed(shown: list[EventSource], since: float) -> list[Event]:
    """The events after `since`, oldest first: the time of the last is where a stream that is cut goes on."""
    events = events_since(current_user.id, since)
    events += [event for source in shown for event in source.missed(since)]
    return sorted(events, key=lambda event: float(event["timestamp"]))


@bp.get("/notifications/all")
@login_required
def index() -> ResponseReturnValue:
    """All that the user was told, newest first."""
    page = notifications_of(current_user.id, request.args.get("before"), request.args.get("after"))
    return render_template("notifications/index.html", page=page, told=renderers.render_notifications(page.items))


@bp.get(f"/notifications/<{ID_IN_ADDRESS}:notification_id>")
@login_required
def follow_up(notification_id: int) -> ResponseReturnValue:
    """Go to the page that a notification is about; it is read by that."""
    user_id = current_user.id
    row = find_notifications(notification_id, user_id) or abort(404, _("There is no such notification."))
    told = renderers.render_notifications([row]).get(row.id)
    if mark_notifications_read(user_id, Notification.id == row.id):
        db.session.commit()
        push(user_id, row)
    return redirect(told.address if told else url_for("notifications.index"))


@bp.post("/notifications/read")
@login_required
def mark_all_read() -> ResponseReturnValue:
    """Mark everything that the user was told as read."""
    mark_read_and_push(current_user.id)
    return redirect(url_for("notifications.index"))


def _since(text: str) -> float:
    """Seconds since 1970 as a page gave them; anything else is a bad request."""
    try:
        seconds = float(text)
        time_from_seconds(seconds)
    except ValueError:
        seconds = math.nan
    if math.isnan(seconds):
        abort(400, _("“since” must be a time in seconds since 1970."))
    return seconds
