"""Which workers there are: each signs in every few seconds, and is missed once it no longer does.

Celery knows only who answers. To name a worker that does not, somebody has to have known it before: Redis keeps when
each was last seen. A worker that ends takes its name out; one that was killed or is frozen is listed until
``WORKER_FORGOTTEN_AFTER`` seconds have gone by.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import redis
from celery import bootsteps
from flask import current_app

from microblog.clock import utcnow
from microblog.extensions import redis_client

logger = logging.getLogger(__name__)

SIGN_IN_EVERY = 5.0  # seconds
KEY = "microblog:workers"  # a sorted set: names, by when they were last seen


def known() -> dict[str, datetime]:
    """The workers that should answer, each with when it was last seen. Raises redis.exceptions.RedisError."""
    forgotten = utcnow() - timedelta(seconds=current_app.config["WORKER_FORGOTTEN_AFTER"])
    seen: Any = redis_client.connection.zrangebyscore(KEY, forgotten.timestamp(), "+inf", withscores=True)
    return {str(name): datetime.fromtimestamp(float(at), UTC) for name, at in seen}


class Presence(bootsteps.StartStopStep):
    """The part of a worker that signs in: as soon as its main loop runs, and every few seconds from then on."""

    requires = ("celery.worker.consumer.control:Control",)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self._entries: list[Any] = []

    def start(self, consumer: Any) -> None:
        """Begin to sign in; on every connection to the broker anew."""
        timer = consumer.timer
        self._entries = [
            timer.call_after(0, self._sign_in, (consumer,)),  # by then it hears what it is asked
            timer.call_repeatedly(SIGN_IN_EVERY, self._sign_in, (consumer,)),
        ]

    def stop(self, consumer: Any) -> None:
        """Sign in no more; and sign out, if it is not only the connection that ends."""
        for entry in self._entries:
            entry.cancel()
        self._entries = []
        if consumer.blueprint.state != bootsteps.RUN:
            self._sign_out(consumer)

    def _sign_in(self, consumer: Any) -> None:
        flask_app = consumer.app.flask_app
        now = utcnow().timestamp()
        try:
            with flask_app.extensions["redis"].pipeline() as pipe:
                pipe.zadd(KEY, {consumer.hostname: now})
                pipe.zremrangebyscore(KEY, "-inf", now - flask_app.config["WORKER_FORGOTTEN_AFTER"])
                pipe.execute()
        except redis.RedisError as error:
            logger.warning("this worker could not sign in: %s", error)

    def _sign_out(self, consumer: Any) -> None:
        try:
            consumer.app.flask_app.extensions["redis"].zrem(KEY, consumer.hostname)
        except redis.RedisError as error:
            logger.warning("this worker could not sign out: %s", error)
