"""The queues: how many messages wait in each, for how long, and who takes them."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
import sqlalchemy as sa
from flask import current_app
from sqlalchemy.exc import InterfaceError, OperationalError

from microblog.celeryconfig import pause
from microblog.extensions import db, redis_client
from microblog.monitoring.workers import Answers
from microblog.taskqueue.models import Task

logger = logging.getLogger(__name__)

HEAD = 10  # messages that are looked at: one that was given back is no longer the next, and some have no row


@dataclass(frozen=True)
class Measured:
    """A queue.

    `length` counts messages that no worker has taken; `oldest` tells since when the one that was published first has
    been waiting (None if nothing waits, or only what has no row, such as the schedule's own); `consumers` how many
    workers take from it, None if nobody was asked.
    """

    name: str
    length: int
    oldest: datetime | None
    consumers: int | None
    paused: bool


def measure(answers: Answers | None = None) -> list[Measured]:
    """All queues: those of the settings, and others that a worker consumes, according to its answer.

    Raises redis.exceptions.RedisError if Redis is away.
    """
    consumed = [name for facts in answers.up.values() for name in facts["queues"]] if answers else []
    names = known(consumed)
    with redis_client.connection.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.llen(name)
            pipe.lrange(name, -HEAD, -1)  # Kombu takes from the end
        told = iter(pipe.execute())
    lengths, heads = {}, {}
    for name in names:
        lengths[name], heads[name] = next(told), _task_ids(next(told))
    published = _published([task_id for head in heads.values() for task_id in head])
    paused = pause.paused()
    return [
        Measured(
            name=name,
            length=lengths[name],
            oldest=min((published[task_id] for task_id in heads[name] if task_id in published), default=None),
            consumers=consumed.count(name) if answers else None,
            paused=name in paused,
        )
        for name in names
    ]


def length(queue: str) -> int:
    """How many messages of a queue no worker has taken. Raises redis.exceptions.RedisError."""
    return int(redis_client.connection.llen(queue))


def unfinished_tasks(queue: str) -> int:
    """How many tasks of a queue have yet to end, whether they have a message in it or not."""
    counted = sa.select(sa.func.count()).select_from(Task).where(Task.unfinished, Task.queue == queue)
    return db.session.scalar(counted) or 0


def purge(queue: str) -> int:
    """Throw away the messages of a queue that no worker has taken; returns how many.

    Raises redis.exceptions.RedisError or kombu.exceptions.OperationalError if Redis is away.
    """
    redis_client.connection.ping()  # which gives up sooner than Celery's connection
    with current_app.extensions["celery"].connection_for_write() as connection:
        return int(connection.default_channel.queue_purge(queue))


def known(others: Iterable[str] = ()) -> list[str]:
    """The names of the queues of the settings, in their order, and then the `others`."""
    configured = [queue.name for queue in current_app.extensions["celery"].conf.task_queues]
    return configured + sorted(set(others) - set(configured))


def _task_ids(messages: list[str]) -> list[str]:
    """The tasks that messages are for."""
    return [task_id for message in messages if (task_id := _task_id(message))]


def _task_id(message: str) -> str | None:
    try:
        headers: dict[str, Any] = orjson.loads(message)["headers"]
        return str(headers["id"])
    except (ValueError, KeyError, TypeError):  # from elsewhere
        return None


def _published(task_ids: list[str]) -> dict[str, datetime]:
    query = sa.select(Task.id, Task.published_at).where(Task.id.in_(task_ids), Task.published_at.is_not(None))
    try:
        rows = db.session.execute(query)
    except (OperationalError, InterfaceError):  # how long the queues are is to be seen all the same
        logger.warning("the database is away; since when messages wait is not known")
        return {}
    return {row.id: row.published_at for row in rows}
