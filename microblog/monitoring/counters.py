"""Counters of events that no row records: dropped messages and republished messages.

They are stored in Redis. If it loses its data they restart at zero, which Prometheus expects of counters.
"""

from __future__ import annotations

import logging
from typing import Any

import redis
from flask import Flask

from microblog.taskqueue.interface import ClaimRefused, claim_refused, message_republished

logger = logging.getLogger(__name__)

KEY = "microblog:counts"  # a hash: event name to count
RELAYED = "relayed"
REFUSED = "refused:"  # followed by the reason: the name of the exception class


def init_app(app: Flask) -> None:
    """Count the signals of the engine of `app`."""

    def count_refusal(sender: object, refusal: ClaimRefused) -> None:
        _count(app, REFUSED + type(refusal).__name__)

    def count_relay(sender: object, **_: Any) -> None:
        _count(app, RELAYED)

    app.extensions["count_events"] = count_refusal, count_relay  # signals keep only weak references
    claim_refused.connect(count_refusal, sender=app.extensions["celery"])
    message_republished.connect(count_relay, sender=app.extensions["celery"])


def refused(counts: dict[str, int]) -> dict[str, int]:
    """Return the number of refused claims by reason, from the counts that read() returns."""
    return {name.removeprefix(REFUSED): count for name, count in counts.items() if name.startswith(REFUSED)}


def read(client: redis.Redis) -> dict[str, int]:
    """Return all counts. Raises redis.exceptions.RedisError."""
    counts: dict[str, str] = client.hgetall(KEY)  # type: ignore[assignment]
    return {name: int(count) for name, count in counts.items()}


def _count(app: Flask, event: str) -> None:
    try:
        app.extensions["redis"].hincrby(KEY, event, 1)
    except redis.RedisError:
        logger.warning("Redis is unavailable; one %s event is not counted", event)
