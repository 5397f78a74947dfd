"""What the broker can tell of the messages that it was given."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from flask import current_app

from microblog.celeryconfig.pause import held
from microblog.clock import utcnow
from microblog.extensions import redis_client

EPOCH_KEY = "microblog:epoch"  # in Redis; gone when Redis has forgotten everything


@dataclass(frozen=True)
class Broker:
    """Since when the broker remembers, which of its queues hold no message, and which are paused."""

    remembers_since: datetime
    idle_queues: frozenset[str]
    held_queues: frozenset[str]

    @classmethod
    def look(cls) -> Broker:
        """Ask Redis. Raises redis.exceptions.RedisError."""
        connection = redis_client.connection
        now = utcnow()
        remember_since_now(connection)
        since = connection.get(EPOCH_KEY)
        queues = [queue.name for queue in current_app.extensions["celery"].conf.task_queues]
        return cls(
            remembers_since=datetime.fromisoformat(str(since)) if since else now,
            idle_queues=frozenset(name for name in queues if not connection.llen(name)),
            held_queues=frozenset(held()),
        )


def remember_since_now(connection: Any) -> None:
    """Note the time in a Redis that has none yet: it is new, or has forgotten everything. Raises RedisError."""
    connection.set(EPOCH_KEY, utcnow().isoformat(), nx=True)
