"""Paused queues, the order of queues, and how far each queue has been consumed.

Redis stores which queues are paused. A worker reads this on every connection to the broker, every few seconds, and when
it receives the remote control command ``apply_pauses``. It finishes the tasks that it has started.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any

import redis
from celery import bootsteps
from celery.worker.control import control_command
from celery.worker.state import reserved_requests
from kombu.utils.scheduling import round_robin_cycle
from redis.client import NEVER_DECODE

from microblog.clock import utcnow
from microblog.extensions import SiteRedis, redis_client
from microblog.taskqueue.celery_settings import LONG_QUEUE
from microblog.taskqueue.interface import celery_app

logger = logging.getLogger(__name__)

# Removes those of the messages ARGV[3], … that are in a window of a queue: ARGV[2] messages after the ARGV[1] newest
# ones. LREM for each of them would search the queue each time; so all of them are made equal first.
_REMOVE = """
local chosen = {}
for i = 3, #ARGV do chosen[ARGV[i]] = true end
local found = 0
for i, message in ipairs(redis.call("LRANGE", KEYS[1], ARGV[1], ARGV[1] + ARGV[2] - 1)) do
  if chosen[message] then
    redis.call("LSET", KEYS[1], ARGV[1] + i - 1, ARGV[3])
    found = found + 1
  end
end
if found > 0 then redis.call("LREM", KEYS[1], found, ARGV[3]) end
return found
"""

PAUSED_KEY = "paused"  # a hash: queue name to the time at which it was paused
HEAD_LENGTH = 20  # messages read to find the oldest one: a message that was given back is not in its place
WINDOW = 1000  # messages that remove_messages() reads at once
CHECK_INTERVAL = 5.0  # seconds between two checks of a worker


def pause_consuming(queue: str) -> bool:
    """Pause a queue; returns False if it was paused already. Raises redis.exceptions.RedisError."""
    client = redis_client.connection
    return bool(client.hsetnx(client.key(PAUSED_KEY), queue, utcnow().isoformat()))


def resume_consuming(queue: str) -> bool:
    """Resume a queue; returns False if it was not paused. Raises redis.exceptions.RedisError."""
    client = redis_client.connection
    return bool(client.hdel(client.key(PAUSED_KEY), queue))


def paused_queues() -> dict[str, datetime]:
    """Return the paused queues, each with the time at which it was paused. Raises redis.exceptions.RedisError."""
    client = redis_client.connection
    paused = client.hgetall(client.key(PAUSED_KEY))
    return {str(queue): datetime.fromisoformat(str(since)) for queue, since in paused.items()}


class QueueOrder(round_robin_cycle):
    """The queues from which a worker takes its next message: in turn, but long tasks leave one process to others.

    Kombu asks for them before each message (its transport option ``queue_order_strategy``). A worker with one process,
    and one that consumes no other queue, takes long tasks all the same.
    """

    pool: Any = None  # of the worker that runs in this process

    def consume(self, number: int) -> list[str]:
        """Return the queues for the next message."""
        queues: list[str] = super().consume(number)  # type: ignore[no-untyped-call]
        others = [queue for queue in queues if queue != LONG_QUEUE]
        if not others or self.pool is None or self.pool.num_processes == 1:
            return queues
        long_tasks = sum(request.delivery_info.get("routing_key") == LONG_QUEUE for request in reserved_requests)
        return queues if long_tasks < self.pool.num_processes - 1 else others


class QueueOrderStep(bootsteps.StartStopStep):
    """Worker step that tells QueueOrder how many processes there are."""

    requires = ("celery.worker.components:Pool",)

    def start(self, worker: Any) -> None:
        """Set the pool, whose number of processes an operator may change."""
        QueueOrder.pool = worker.pool


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


def consumed_until(now: datetime) -> dict[str, datetime]:
    """Return for each queue a time: all messages published before it have left the queue, since the oldest is next.

    `now` is the time of the database's clock, read before. A queue whose oldest messages do not say when they were
    published is omitted. Raises redis.exceptions.RedisError.
    """
    client = redis_client.connection
    names = [queue.name for queue in celery_app().conf.task_queues]
    with client.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.lrange(client.key(name), -HEAD_LENGTH, -1)  # kombu takes from the end
        heads = pipe.execute()
    oldest = {name: oldest_published_at(head) if head else now for name, head in zip(names, heads, strict=True)}
    return {name: time for name, time in oldest.items() if time is not None}


def remove_messages(task_ids: Mapping[str, Collection[str]]) -> int:
    """Remove the waiting messages of ended tasks, given by queue; return their number.

    Reads each queue once, from the newest message to the oldest, in windows: workers take messages at the other end,
    so that none is skipped, and are never kept waiting for long. Raises redis.exceptions.RedisError.
    """
    client = redis_client.connection
    remove = client.register_script(_REMOVE)
    removed = 0
    for queue, ids in task_ids.items():
        key, start = client.key(queue), 0
        while window := _read_window(client, key, start):
            found = [text for text in window if _header(text, "id") in ids]
            taken = remove(keys=[key], args=[start, WINDOW, *found]) if found else 0
            removed += taken
            start += len(window) - taken
    return removed


def _read_window(client: SiteRedis, key: str, start: int) -> list[bytes]:
    """Return the messages of a window as bytes: one that is malformed may be no text."""
    options = {NEVER_DECODE: True}
    messages: list[bytes] = client.execute_command("LRANGE", key, start, start + WINDOW - 1, **options)  # type: ignore[no-untyped-call]
    return messages


def oldest_published_at(messages: Iterable[str]) -> datetime | None:
    """Return when the oldest of these messages was published; None if they do not say so, such as those of beat."""
    return min((time for text in messages if (time := _published_at(text))), default=None)


def _published_at(text: str) -> datetime | None:
    with contextlib.suppress(ValueError):
        return datetime.fromisoformat(_header(text, "published_at"))
    return None


def _header(text: str | bytes, name: str) -> str:
    """Return a header of a message, "" if it has no such text: it is of another release or of another producer."""
    with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
        value = json.loads(text)["headers"][name]
        if isinstance(value, str):
            return value
    return ""
