"""Paused queues, and a snapshot of the broker.

Redis stores which queues are paused. A worker reads this on every connection to the broker, every few seconds, and when
it receives the remote control command ``apply_pauses``. It finishes the tasks that it has started.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import redis
from celery import bootsteps
from celery.worker.control import control_command

from microblog.clock import utcnow
from microblog.extensions import SiteRedis, redis_client
from microblog.taskqueue.interface import celery_app

logger = logging.getLogger(__name__)

PAUSED_KEY = "paused"  # a hash: queue name to the time at which it was paused
RESUMED_KEY = "resumed:{}"  # by queue name; set for RESUMED_SECONDS after a queue was resumed
RESUMED_SECONDS = 60
DATA_SINCE_KEY = "epoch"  # the time since which Redis has had its data
CHECK_INTERVAL = 5.0  # seconds between two checks of a worker


def pause_consuming(queue: str) -> bool:
    """Pause a queue; returns False if it was paused already. Raises redis.exceptions.RedisError."""
    client = redis_client.connection
    return bool(client.hsetnx(client.key(PAUSED_KEY), queue, utcnow().isoformat()))


def resume_consuming(queue: str) -> bool:
    """Resume a queue; returns False if it was not paused. Raises redis.exceptions.RedisError."""
    client = redis_client.connection
    with client.pipeline() as pipe:
        pipe.hdel(client.key(PAUSED_KEY), queue)
        pipe.set(client.key(RESUMED_KEY.format(queue)), 1, ex=RESUMED_SECONDS)
        was_paused, _ = pipe.execute()
    return bool(was_paused)


def paused_queues() -> dict[str, datetime]:
    """Return the paused queues, each with the time at which it was paused. Raises redis.exceptions.RedisError."""
    client = redis_client.connection
    paused = client.hgetall(client.key(PAUSED_KEY))
    return {str(queue): datetime.fromisoformat(str(since)) for queue, since in paused.items()}


def paused_or_resuming_queues() -> set[str]:
    """Return the queues that are paused or were resumed in the last minute: a message that waits there is not lost.

    Raises redis.exceptions.RedisError.
    """
    client = redis_client.connection
    names = [queue.name for queue in celery_app().conf.task_queues]
    lately = client.mget([client.key(RESUMED_KEY.format(name)) for name in names])
    resumed = {name for name, found in zip(names, lately, strict=True) if found}
    return resumed | {str(queue) for queue in client.hkeys(client.key(PAUSED_KEY))}


class PausedQueuesStep(bootsteps.StartStopStep):
    """Consumer step that does not consume paused queues."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        consumer.paused_queues = self
        self._cancelled: set[str] = set()  # queues that this worker would consume if they were not paused
        self._entry: Any = None

    def start(self, consumer: Any) -> None:
        """Apply the pauses before a message is taken. Raises redis.exceptions.RedisError if they cannot be read."""
        self.apply(consumer)
        self._entry = consumer.timer.call_repeatedly(CHECK_INTERVAL, self._apply_again, (consumer,))

    def stop(self, consumer: Any) -> None:
        """Stop checking."""
        if self._entry is not None:
            self._entry.cancel()

    def apply(self, consumer: Any) -> None:
        """Stop consuming paused queues, and consume resumed ones again. Raises redis.exceptions.RedisError."""
        client: SiteRedis = consumer.app.flask_app.extensions["redis"]
        paused = {str(queue) for queue in client.hkeys(client.key(PAUSED_KEY))}
        consumed = {queue.name for queue in consumer.task_consumer.queues}
        for queue in consumed & paused:
            consumer.cancel_task_queue(queue)
            self._cancelled.add(queue)
        for queue in self._cancelled - paused:
            consumer.add_task_queue(queue)
            self._cancelled.discard(queue)

    def _apply_again(self, consumer: Any) -> None:
        try:
            self.apply(consumer)
        except redis.RedisError as error:
            logger.warning("Redis is unavailable (%s); changes of the paused queues apply later", error)


@control_command()
def apply_pauses(state: Any) -> dict[str, Any]:
    """Apply the current pauses immediately."""
    state.consumer.paused_queues.apply(state.consumer)
    return {"ok": sorted(queue.name for queue in state.consumer.task_consumer.queues)}


@dataclass(frozen=True)
class BrokerSnapshot:
    """The state of the broker: since when it has had its data, and which of its queues are empty or not
    consumed."""

    data_since: datetime
    empty_queues: frozenset[str]
    unconsumed_queues: frozenset[str]  # paused, or resumed in the last minute

    @classmethod
    def fetch(cls) -> BrokerSnapshot:
        """Return the current state. Raises redis.exceptions.RedisError."""
        client = redis_client.connection
        now = utcnow()
        record_data_since(client)
        since = client.get(client.key(DATA_SINCE_KEY))
        queues = [queue.name for queue in celery_app().conf.task_queues]
        return cls(
            data_since=datetime.fromisoformat(str(since)) if since else now,
            empty_queues=frozenset(name for name in queues if not client.llen(client.key(name))),
            unconsumed_queues=frozenset(paused_or_resuming_queues()),
        )


def record_data_since(client: SiteRedis) -> None:
    """Store the current time in a Redis that is new or has lost its data. Raises redis.exceptions.RedisError."""
    client.set(client.key(DATA_SINCE_KEY), utcnow().isoformat(), nx=True)
