"""Event stream, polling, and the page of notifications."""

from __future__ import annotations

import math

from flask import Blueprint, abort, jsonify, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext as _
from flask_login import current_user, login_required

from microblog.database import database_time
from microblog.extensions import db
from microblog.notifications import renderers, replay
from microblog.notifications.models import Notification
from microblog.notifications.push import mark_read_and_push, push
from microblog.notifications.replay import Event, EventSource, events_since, time_from_seconds
from microblog.notifications.services import find_notification, mark_notifications_read, notifications_of
from microblog.notifications.sse import event_stream
from microblog.pagination import requested_page
from microblog.validators import ID_CONVERTER

bp = Blueprint("notifications", __name__)

# Seconds before a page's last event that are replayed: clocks differ, and a row may be written some time after its
# timestamp. A page ignores events that it already has.
OVERLAP = 15.0


@bp.get("/notifications")
@login_required
def poll() -> ResponseReturnValue:
    """Return the user's events after ``since`` (seconds since 1970; default 0) as a list.

    Further arguments name the objects that the page shows (see replay.py); the events of these are included.
    """
    since = _since(request.args.get("since", "0"))
    return jsonify(_missed(replay.sources_for_page(current_user.id, request.args), since))


@bp.get("/notifications/stream")
@login_required
def stream() -> ResponseReturnValue:
    """Stream the user's events as they occur, after those that the page missed since ``Last-Event-ID`` or ``since``.

    Further arguments are those of poll().
    """
    last_seen = request.headers.get("Last-Event-ID") or request.args.get("since")
    since = database_time(db.session).timestamp() if last_seen is None else _since(last_seen)
    shown = replay.sources_for_page(current_user.id, request.args)
    topics = [topic for source in shown for topic in source.topics]
    return event_stream(current_user.id, topics, lambda: _missed(shown, max(since - OVERLAP, 0.0)))


def _missed(shown: list[EventSource], since: float) -> list[Event]:
    """Return the events after `since`, oldest first: an interrupted stream resumes at the time of the last one."""
    events = events_since(current_user.id, since)
    events += [event for source in shown for event in source.missed(since)]
    return sorted(events, key=lambda event: float(event["timestamp"]))


@bp.get("/notifications/all")
@login_required
def index() -> ResponseReturnValue:
    """List the user's notifications, newest first."""
    page = notifications_of(current_user.id, requested_page())
    return render_template("notifications/index.html", page=page, rendered=renderers.render_notifications(page.items))


@bp.get(f"/notifications/<{ID_CONVERTER}:notification_id>")
@login_required
def follow_up(notification_id: int) -> ResponseReturnValue:
    """Redirect to the page that a notification is about, and mark the notification as read."""
    user_id = current_user.id
    row = find_notification(notification_id, user_id) or abort(404, _("There is no such notification."))
    rendered = renderers.render_notifications([row]).get(row.id)
    if mark_notifications_read(user_id, Notification.id == row.id):
        db.session.commit()
        push(user_id, row)
    return redirect(rendered.url if rendered else url_for("notifications.index"))


@bp.post("/notifications/read")
@login_required
def mark_all_read() -> ResponseReturnValue:
    """Mark all notifications of the user as read."""
    mark_read_and_push(current_user.id)
    return redirect(url_for("notifications.index"))


def _since(text: str) -> float:
    """Parse seconds since 1970 from a request. Responds with 400 if they are invalid."""
    try:
        seconds = float(text)
        time_from_seconds(seconds)
    except ValueError:
        seconds = math.nan
    if math.isnan(seconds):
        abort(400, _("“since” must be a time in seconds since 1970."))
    return seconds
