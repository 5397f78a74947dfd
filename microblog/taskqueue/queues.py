"""Paused queues, and a snapshot of the broker.

Redis keeps which queues are paused. A worker reads that on every connection to the broker, every few seconds, and when
it gets the remote control command ``apply_pauses``. It finishes the tasks that it has started.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import redis
from celery import bootsteps
from celery.worker.control import control_command
from flask import current_app

from microblog.clock import utcnow
from microblog.extensions import redis_client

logger = logging.getLogger(__name__)

KEY = "microblog:paused"  # a hash: the names of queues, and since when
RESUMED = "microblog:resumed:{}"  # by the name of a queue; gone after
HELD_AFTERWARDS = 60  # seconds
LOOK_EVERY = 5.0  # seconds


def pause_consuming(queue: str) -> bool:
    """Pause a queue; returns False if it was paused already. Raises redis.exceptions.RedisError."""
    return bool(redis_client.connection.hsetnx(KEY, queue, utcnow().isoformat()))


def resume_consuming(queue: str) -> bool:
    """Resume a queue; returns False if it was not paused. Raises redis.exceptions.RedisError."""
    with redis_client.connection.pipeline() as pipe:
        pipe.hdel(KEY, queue)
        pipe.set(RESUMED.format(queue), 1, ex=HELD_AFTERWARDS)
        was_paused, _ = pipe.execute()
    return bool(was_paused)


def paused_queues() -> dict[str, datetime]:
    """The queues that are paused, each since when. Raises redis.exceptions.RedisError."""
    kept = redis_client.connection.hgetall(KEY)
    return {str(queue): datetime.fromisoformat(str(since)) for queue, since in kept.items()}


def paused_or_resuming_queues() -> set[str]:
    """The queues in which messages wait, or waited until a moment ago, since they were paused, not since they are lost.

    Raises redis.exceptions.RedisError.
    """
    connection = redis_client.connection
    names = [queue.name for queue in current_app.extensions["celery"].conf.task_queues]
    lately = connection.mget([RESUMED.format(name) for name in names])
    resumed = {name for name, found in zip(names, lately, strict=True) if found}
    return resumed | {str(queue) for queue in connection.hkeys(KEY)}


class PausedQueuesStep(bootsteps.StartStopStep):
    """The part of a worker that takes nothing from queues that are paused."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        consumer.paused_queues = self
        self._left: set[str] = set()  # queues that this worker would consume if they were not paused
        self._entry: Any = None

    def start(self, consumer: Any) -> None:
        """Leave what is paused, before anything is taken. Raises redis.exceptions.RedisError: it must be known."""
        self.look(consumer)
        self._entry = consumer.timer.call_repeatedly(LOOK_EVERY, self._look_again, (consumer,))

    def stop(self, consumer: Any) -> None:
        """Look no more."""
        if self._entry is not None:
            self._entry.cancel()

    def look(self, consumer: Any) -> None:
        """Leave the queues that are paused, and return to those that were. Raises redis.exceptions.RedisError."""
        paused = {str(queue) for queue in consumer.app.flask_app.extensions["redis"].hkeys(KEY)}
        consumed = {queue.name for queue in consumer.task_consumer.queues}
        for queue in consumed & paused:
            consumer.cancel_task_queue(queue)
            self._left.add(queue)
        for queue in self._left - paused:
            consumer.add_task_queue(queue)
            self._left.discard(queue)

    def _look_again(self, consumer: Any) -> None:
        try:
            self.look(consumer)
        except redis.RedisError as error:
            logger.warning("this worker could not look which queues are paused: %s", error)


@control_command()
def apply_pauses(state: Any) -> dict[str, Any]:
    """Look at once which queues are paused."""
    state.consumer.paused_queues.look(state.consumer)
    return {"ok": sorted(queue.name for queue in state.consumer.task_consumer.queues)}


EPOCH_KEY = "microblog:epoch"  # in Redis; gone when Redis has forgotten everything


@dataclass(frozen=True)
class BrokerSnapshot:
    """Since when the broker remembers, which of its queues hold no message, and which are paused."""

    remembers_since: datetime
    idle_queues: frozenset[str]
    held_queues: frozenset[str]

    @classmethod
    def look(cls) -> BrokerSnapshot:
        """Ask Redis. Raises redis.exceptions.RedisError."""
        connection = redis_client.connection
        now = utcnow()
        record_data_since(connection)
        since = connection.get(EPOCH_KEY)
        queues = [queue.name for queue in current_app.extensions["celery"].conf.task_queues]
        return cls(
            remembers_since=datetime.fromisoformat(str(since)) if since else now,
            idle_queues=frozenset(name for name in queues if not connection.llen(name)),
            held_queues=frozenset(paused_or_resuming_queues()),
        )


def record_data_since(connection: Any) -> None:
    """Note the time in a Redis that has none yet: it is new, or has forgotten everything. Raises RedisError."""
    connection.set(EPOCH_KEY, utcnow().isoformat(), nx=True)
