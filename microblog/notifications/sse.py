"""Server-sent events as a response."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import orjson
from flask import Response, abort, current_app
from flask_babel import gettext as _

from microblog.extensions import db
from microblog.notifications.pubsub import Hub, Subscription, TooManyStreams

RECONNECT_AFTER = 2000  # milliseconds


def event_stream(reader_id: int, topics: Iterable[str], read_missed: Callable[[], list[dict[str, Any]]]) -> Response:
    """Return a response that streams a user's own events and those of `topics` as they occur.

    The stream begins with the events that `read_missed` returns. The caller must check that the user has access to
    `topics`. Raises TooManyRequests if the user already has ``STREAMS_PER_USER`` streams; the page then polls every few
    seconds.
    """
    hub: Hub = current_app.extensions["hub"]
    try:
        subscription = hub.subscribe(topics, reader_id)  # before the replay, so that no event is lost between the two
    except TooManyStreams:
        abort(429, _("Too many of your pages are open at once. Close some of them."))
    try:
        missed = read_missed()
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
        yield b": heartbeat\n\n" if event_or_none is None else _frame(event_or_none)


def _frame(event: dict[str, Any]) -> bytes:
    identity = b"id: %.6f\n" % event["timestamp"] if "timestamp" in event else b""
    return identity + b"data: " + orjson.dumps(event) + b"\n\n"
