"""Lengths, ages and consumers of the queues."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from microblog.extensions import db, redis_client
from microblog.monitoring.workers import WorkerReplies
from microblog.taskqueue.interface import celery_app
from microblog.taskqueue.models import Task
from microblog.taskqueue.queues import HEAD_LENGTH, oldest_published_at, paused_queues


@dataclass(frozen=True)
class QueueStats:
    """The state of a queue.

    `length` is the number of messages that no worker has taken. `oldest` is the time at which the first of them was
    published; None if there are none, or none that says so, such as those of beat. `consumers` is the number of workers
    that consume the queue; None if the workers were not queried.
    """

    name: str
    length: int
    oldest: datetime | None
    consumers: int | None
    paused: bool


def measure_queues(replies: WorkerReplies | None = None) -> list[QueueStats]:
    """Return the state of all queues: those of the settings, and others that a worker consumes according to `replies`.

    Raises redis.exceptions.RedisError if Redis is unavailable.
    """
    consumed = [name for reply in replies.up.values() for name in reply["queues"]] if replies else []
    names = known_queues(consumed)
    client = redis_client.connection
    with client.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.llen(client.key(name))
            pipe.lrange(client.key(name), -HEAD_LENGTH, -1)  # Kombu takes from the end
        results = pipe.execute()
    paused = paused_queues()
    return [
        QueueStats(
            name=name,
            length=length,
            oldest=oldest_published_at(head),
            consumers=consumed.count(name) if replies else None,
            paused=name in paused,
        )
        for name, length, head in zip(names, results[::2], results[1::2], strict=True)
    ]


def queue_length(queue: str) -> int:
    """Return the number of waiting messages of a queue. Raises redis.exceptions.RedisError."""
    return int(redis_client.connection.llen(redis_client.connection.key(queue)))


def unfinished_tasks(queue: str) -> int:
    """Return the number of unfinished tasks of a queue, whether or not they have a message in it."""
    counted = sa.select(sa.func.count()).select_from(Task).where(Task.unfinished, Task.queue == queue)
    return db.session.scalar(counted) or 0


def purge_queue(queue: str) -> int:
    """Delete the messages of a queue that no worker has taken; returns their number.

    Raises redis.exceptions.RedisError or kombu.exceptions.OperationalError if Redis is unavailable.
    """
    redis_client.connection.ping()  # times out sooner than Celery's connection
    with celery_app().connection_for_write() as connection:
        return int(connection.default_channel.queue_purge(queue))


def known_queues(others: Iterable[str] = ()) -> list[str]:
    """Return the names of the queues of the settings, in their order, followed by the `others`."""
    configured = [queue.name for queue in celery_app().conf.task_queues]
    return configured + sorted(set(others) - set(configured))
