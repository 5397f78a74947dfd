"""A worker's consumer: messages that no task can be made of are set aside and do not end the worker.

They are kept in a list of Redis, the dead letters, of which the newest remain. Where a message is checked depends on
where Celery would fail: transport.py passes each reply of Redis to envelope_problem() before kombu reads it, and
Consumer checks the task before Celery does.
"""

from __future__ import annotations

import base64
import json
import logging
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from celery import current_app
from celery.worker import consumer
from kombu.message import Message
from redis.exceptions import RedisError

from microblog.clock import utcnow
from microblog.database import LogDatabaseErrors
from microblog.extensions import redis_client
from microblog.taskqueue.interface import message_set_aside
from microblog.taskqueue.transitions import return_message

logger = logging.getLogger(__name__)

DEAD_LETTERS_KEY = "microblog:dead-letters"  # a list, the newest first
MAX_DEAD_LETTERS = 100
MAX_TEXT = 10_000  # characters of a message that are kept

#: Errors of decoding a message and of looking into one that has another form.
MALFORMED = (ValueError, TypeError, LookupError, AttributeError)


@dataclass(frozen=True)
class DeadLetter:
    """A message that was set aside, with the reason. `message` is the beginning of its text."""

    at: datetime
    queue: str
    reason: str
    message: str


def dead_letters() -> list[DeadLetter]:
    """Return the messages that were set aside, the newest first. Raises redis.exceptions.RedisError."""
    found = [orjson.loads(text) for text in redis_client.connection.lrange(DEAD_LETTERS_KEY, 0, -1)]
    return [DeadLetter(**letter | {"at": datetime.fromisoformat(letter["at"])}) for letter in found]


def count_dead_letters() -> int:
    """Return the number of messages that were set aside. Raises redis.exceptions.RedisError."""
    return int(redis_client.connection.llen(DEAD_LETTERS_KEY))


def delete_dead_letters() -> int:
    """Delete the messages that were set aside; returns their number. Raises redis.exceptions.RedisError."""
    with redis_client.connection.pipeline() as pipe:
        pipe.llen(DEAD_LETTERS_KEY)
        pipe.delete(DEAD_LETTERS_KEY)
        return int(pipe.execute()[0])


def set_aside(queue: str, reason: str, message: str) -> None:
    """Keep a message of `queue` that no task can be made of. If Redis is unavailable, it is only logged."""
    logger.error("a message of the queue %s is set aside, since %s (%d characters)", queue, reason, len(message))
    app = current_app._get_current_object()
    letter = {"at": utcnow(), "queue": queue, "reason": reason, "message": message[:MAX_TEXT]}
    try:
        with app.flask_app.extensions["redis"].pipeline() as pipe:
            pipe.lpush(DEAD_LETTERS_KEY, orjson.dumps(letter))
            pipe.ltrim(DEAD_LETTERS_KEY, 0, MAX_DEAD_LETTERS - 1)
            pipe.execute()
    except RedisError as error:
        logger.warning("Redis is unavailable (%s); the message is lost: %s", error, message[:MAX_TEXT])
    message_set_aside.send(app, queue=queue)


def envelope_problem(text: str) -> str | None:
    """Return why kombu cannot read the text of a message; None if it can."""
    try:
        message = json.loads(text)
    except ValueError:
        return "it is not JSON"
    try:
        properties = message["properties"]
        properties["delivery_tag"], properties["delivery_info"]["routing_key"], properties["delivery_info"]["exchange"]
        message["headers"].items()
        if properties.get("body_encoding") == "base64":
            base64.b64decode(message["body"])
        elif properties.get("body_encoding") is not None or not isinstance(message["body"], str):
            return "its body has an unknown encoding"
    except MALFORMED:
        return "it has no envelope of kombu"
    return None


def task_problem(message: Message) -> str | None:
    """Return why no task can be made of a message; None if it can."""
    headers: Any = message.headers
    if not isinstance(headers, dict) or not all(isinstance(headers.get(name), str) for name in ("task", "id")):
        return "its headers have no task and id"
    try:
        args, kwargs, embed = message.decode()  # type: ignore[no-untyped-call]
    except Exception as error:  # ContentDisallowed, and any error of the decoder
        return f"its body cannot be decoded ({type(error).__name__})"
    if not (isinstance(args, list) and isinstance(kwargs, dict) and isinstance(embed, dict)):
        return "its body has no arguments"
    return None


class Consumer(consumer.Consumer):
    """Celery's consumer, which sets aside messages that no task can be made of."""

    def create_task_handler(self, *args: Any, **options: Any) -> Any:
        """Return the function that Celery calls with each message."""
        handle = super().create_task_handler(*args, **options)

        def on_message(message: Message) -> None:
            if reason := task_problem(message):
                self._set_aside(message, reason)
                message.ack_log_error(logger, self.connection_errors)  # type: ignore[no-untyped-call]
            else:
                handle(message)

        return on_message

    def on_invalid_task(self, body: Any, message: Message, exc: Exception) -> None:
        """As Celery's, which rejects a message whose headers have invalid values, such as a time."""
        self._set_aside(message, f"Celery refuses it ({exc})")
        super().on_invalid_task(body, message, exc)

    def on_unknown_task(self, body: Any, message: Message, exc: Exception) -> None:
        """Give the message of another release back: reconcile publishes it again, for a worker that has the task.

        Celery would fail the task. A message without an unfinished row, such as one of beat, is dropped.
        """
        task_id = str(message.headers["id"])
        logger.warning("this worker has no task %s; the message of %s is published again", exc, task_id)
        with LogDatabaseErrors(logger, "the message of %s counts as lost", task_id):
            return_message(self.app.executor, task_id)
        message.ack_log_error(logger, self.connection_errors)  # type: ignore[no-untyped-call]

    def _set_aside(self, message: Message, reason: str) -> None:
        queue = (message.delivery_info or {}).get("routing_key")
        content = {"headers": message.headers, "body": str(message.body)}
        set_aside(str(queue), reason, json.dumps(content))
