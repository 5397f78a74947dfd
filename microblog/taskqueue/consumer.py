"""A worker's consumer: malformed messages are set aside and do not terminate the worker.

They are kept in a list in Redis, the dead letters, of which the newest remain. A message is checked where it would
fail: transport.py passes each reply of Redis to envelope_problem() before kombu reads it, and Consumer checks the task
before Celery does.
"""

from __future__ import annotations

import contextlib
import json
import logging
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from celery import current_app
from celery.worker import consumer
from kombu.message import Message
from kombu.transport.virtual import Base64
from kombu.utils.json import loads
from redis.exceptions import RedisError

from microblog.clock import utcnow
from microblog.database import LogDatabaseErrors
from microblog.extensions import SiteRedis, redis_client
from microblog.taskqueue.interface import message_set_aside
from microblog.taskqueue.transitions import return_message

logger = logging.getLogger(__name__)

DEAD_LETTERS_KEY = "dead-letters"  # a list, the newest first
MAX_DEAD_LETTERS = 100
MAX_TEXT = 10_000  # characters of a message that are kept


@dataclass(frozen=True)
class DeadLetter:
    """A message that was set aside, with the reason. `message` is the beginning of its text."""

    at: datetime
    queue: str
    reason: str
    message: str


def dead_letters() -> list[DeadLetter]:
    """Return the messages that were set aside, the newest first. Raises redis.exceptions.RedisError."""
    client = redis_client.connection
    found = [json.loads(text) for text in client.lrange(client.key(DEAD_LETTERS_KEY), 0, -1)]
    return [DeadLetter(**letter | {"at": datetime.fromisoformat(letter["at"])}) for letter in found]


def count_dead_letters() -> int:
    """Return the number of messages that were set aside. Raises redis.exceptions.RedisError."""
    client = redis_client.connection
    return int(client.llen(client.key(DEAD_LETTERS_KEY)))


def delete_dead_letters(number: int) -> None:
    """Delete the oldest `number` of the messages that were set aside. Raises redis.exceptions.RedisError."""
    client = redis_client.connection
    client.ltrim(client.key(DEAD_LETTERS_KEY), 0, -(number + 1))


def set_aside(queue: str, reason: str, message: str) -> None:
    """Keep a malformed message of `queue`. If Redis is unavailable, it is only logged."""
    logger.error("a message of the queue %s is set aside, since %s (%d characters)", queue, reason, len(message))
    app = current_app._get_current_object()
    letter = {"at": utcnow().isoformat(), "queue": queue, "reason": reason, "message": message[:MAX_TEXT]}
    try:
        client: SiteRedis = app.flask_app.extensions["redis"]
        with client.pipeline() as pipe:
            pipe.lpush(client.key(DEAD_LETTERS_KEY), json.dumps(letter))
            pipe.ltrim(client.key(DEAD_LETTERS_KEY), 0, MAX_DEAD_LETTERS - 1)
            pipe.execute()
    except RedisError as error:
        logger.warning("Redis is unavailable (%s); the message is lost: %s", error, message[:MAX_TEXT])
    message_set_aside.send(app, queue=queue)


def envelope_problem(text: str, *, unacknowledged: bool = False) -> str | None:
    """Return why kombu cannot read the text of a message; None if it can.

    It stores an `unacknowledged` message in a list with its exchange and its routing key.
    """
    try:
        value = loads(text)  # type: ignore[no-untyped-call]
    except Exception as error:  # such as too many nested lists, or an invalid value of a type that kombu encodes
        return f"it is not valid JSON ({type(error).__name__})"
    try:
        message, exchange, key = value if unacknowledged else (value, "", "")
        properties, headers, body = message["properties"], message["headers"], message["body"]
        place = properties["delivery_info"]
        names = properties["delivery_tag"], place["routing_key"], place["exchange"], exchange, key
        if properties.get("body_encoding") == "base64":
            Base64().decode(body)  # type: ignore[no-untyped-call]
        valid = properties.get("body_encoding") in ("base64", None)
        valid &= isinstance(headers, dict) and isinstance(body, str) and all(isinstance(each, str) for each in names)
    except Exception:  # a part is missing, or of another type
        valid = False
    return None if valid else "it has no valid envelope of kombu"


def task_problem(message: Message) -> str | None:
    """Return why a message is not a task; None if it is one."""
    headers: Any = message.headers
    names = [headers.get(name) for name in ("task", "id")]
    if not all(isinstance(name, str) and name and "\0" not in name and _is_unicode(name) for name in names):
        return "its headers have no valid task and id"
    # Celery reads these when it has reserved a process of its pool, which an error would never release.
    if not (_are_limits(headers.get("timelimit")) and isinstance(headers.get("retries") or 0, int)):
        return "its headers have invalid time limits or retries"
    try:
        args, kwargs, embed = message.decode()  # type: ignore[no-untyped-call]
    except Exception as error:  # ContentDisallowed, and any error of the decoder
        return f"its body cannot be decoded ({type(error).__name__})"
    if not (isinstance(args, list) and isinstance(kwargs, dict) and isinstance(embed, dict)):
        return "its body has no arguments"
    return None


def _are_limits(value: Any) -> bool:
    """Return whether `value` is a pair of time limits, as a message has them."""
    if value is None:
        return True
    return isinstance(value, list) and len(value) == 2 and all(isinstance(one or 0, int | float) for one in value)


def _is_unicode(text: str) -> bool:
    """Return whether `text` can be encoded: JSON may contain one half of a surrogate pair."""
    return text == text.encode(errors="replace").decode()


def is_connection_error(error: Exception, connection_errors: tuple[type[Exception], ...]) -> bool:
    """Return whether `error` is one of kombu's `connection_errors`, except KeyError: a part of a message is missing."""
    return isinstance(error, connection_errors) and not isinstance(error, KeyError)


class Consumer(consumer.Consumer):
    """Celery's consumer, which sets malformed messages aside."""

    def create_task_handler(self, *args: Any, **options: Any) -> Any:
        """Return the function that Celery calls with each message."""
        handle = super().create_task_handler(*args, **options)

        def on_message(message: Message) -> None:
            if reason := task_problem(message):
                self._set_aside(message, reason)
                return
            try:
                handle(message)
            except Exception as error:
                if is_connection_error(error, self.connection_errors):
                    raise
                self._set_aside(message, f"Celery cannot handle it ({error!r})")

        return on_message

    def add_task_queue(self, queue: Any, *args: Any, **options: Any) -> None:
        """As Celery's. A queue that cannot be consumed, as an operator has named it, is left out."""
        try:
            if not isinstance(queue, str):
                raise TypeError("its name is not text")
            super().add_task_queue(queue, *args, **options)
        except Exception as error:
            if is_connection_error(error, self.connection_errors):
                raise
            logger.error("the queue %r cannot be consumed: %r", queue, error)
            self.cancel_task_queue(queue)

    def cancel_task_queue(self, queue: Any) -> None:
        """As Celery's; does nothing if there is no such queue."""
        with contextlib.suppress(KeyError, TypeError):  # it is not consumed, or its name is not text
            super().cancel_task_queue(queue)

    def on_decode_error(self, message: Message, exc: Exception) -> None:
        """Set a message aside whose compression or encoding is invalid; Celery would only acknowledge it."""
        self._set_aside(message, f"it cannot be decoded ({type(exc).__name__})")

    def on_invalid_task(self, body: Any, message: Message, exc: Exception) -> None:
        """Set a message aside whose headers have invalid values, such as a time; Celery would only reject it."""
        self._set_aside(message, f"Celery refuses it ({exc})")

    def on_unknown_task(self, body: Any, message: Message, exc: Exception) -> None:
        """Return a message that another release has sent: reconcile publishes it for a worker that has the task.

        Celery would fail the task. A message without an unfinished row, such as one of beat, is dropped.
        """
        task_id = str(message.headers["id"])
        logger.warning("this worker has no task %s; %s waits for one that has it, if it is a job", exc, task_id)
        with LogDatabaseErrors(logger, "the message of %s counts as lost", task_id):
            return_message(self.app.executor, task_id)
        message.ack_log_error(logger, self.connection_errors)  # type: ignore[no-untyped-call]

    def _set_aside(self, message: Message, reason: str) -> None:
        queue = (message.delivery_info or {}).get("routing_key")
        content = {"headers": message.headers, "body": str(message.body)}
        set_aside(str(queue), reason, json.dumps(content, default=repr))
        message.ack_log_error(logger, self.connection_errors)  # type: ignore[no-untyped-call]
