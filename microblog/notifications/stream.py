"""Events as server-sent events, which any room can answer a request with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import orjson
from flask import Response, current_app

from microblog.extensions import db
from microblog.notifications.live import Hub, Subscription

RECONNECT_AFTER = 2000  # milliseconds


def event_stream(topics: Iterable[str], read_missed: Callable[[], list[dict[str, Any]]]) -> Response:
    """The response that has the events of `topics` as they happen, after those that `read_missed` returns.

    Who may hear of them is for the caller to say.
    """
    hub: Hub = current_app.extensions["hub"]
    subscription = hub.join(topics)  # before the replay, so that nothing falls between the two
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
        yield b": still here\n\n" if event_or_none is None else _frame(event_or_none)


def _frame(event: dict[str, Any]) -> bytes:
    identity = b"id: %.6f\n" % event["timestamp"] if "timestamp" in event else b""
    return identity + b"data: " + orjson.dumps(event) + b"\n\n"
