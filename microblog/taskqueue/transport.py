"""Kombu's Redis transport and mailboxes: lost connections, refused commands and malformed messages end no worker."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from celery.app import control
from kombu import pidbox
from kombu.transport import redis, virtual
from redis import exceptions

from microblog.taskqueue.consumer import envelope_problem, is_connection_error, set_aside

logger = logging.getLogger(__name__)


class Client(redis.PrefixedStrictRedis):
    """The client of a channel. It sets messages aside that kombu cannot read, whose errors would terminate a worker."""

    def parse_response(self, connection: Any, command_name: str, **options: Any) -> Any:
        """As redis-py's; a queue whose message is set aside seems to be empty."""
        response = super().parse_response(connection, command_name, **options)  # type: ignore[no-untyped-call]
        if command_name == "BRPOP" and response:
            queue, text = map(_to_text, response)
            if reason := envelope_problem(text):
                set_aside(queue, reason, text)
                return None
        return response

    def pubsub(self, **options: Any) -> Any:
        """Return the client of the channel's subscriptions, which are for remote control commands and events."""
        return PubSub(self.connection_pool, global_keyprefix=self.global_keyprefix, **options)  # type: ignore[no-untyped-call]


class PubSub(redis.PrefixedRedisPubSub):
    """The client of a channel's subscriptions. It drops messages that kombu cannot read.

    They are not set aside, since each process has received them.
    """

    def parse_response(self, *args: Any, **options: Any) -> Any:
        """As redis-py's; None for a message that is dropped."""
        response = super().parse_response(*args, **options)  # type: ignore[no-untyped-call]
        if response and _to_text(response[0]).endswith("message"):
            channel, text = map(_to_text, response[-2:])
            if reason := envelope_problem(text):
                logger.error("a message on the channel %s is dropped, since %s: %.200s", channel, reason, text)
                return None
        return response


class QoS(redis.QoS):
    """The messages that workers have not acknowledged. It sets those aside that kombu cannot restore.

    A message that cannot be acknowledged, since Redis refuses, leaves its place to another one: a worker that kept it
    would consume no more once all places were taken. Redis keeps the message until the visibility timeout, after which
    the claim drops it.
    """

    def ack(self, delivery_tag: Any) -> None:
        """As kombu's; frees the place of the message also after an error."""
        with self._place_freed(delivery_tag):
            super().ack(delivery_tag)  # type: ignore[no-untyped-call]

    def reject(self, delivery_tag: Any, requeue: bool = False) -> None:
        """As kombu's; frees the place of the message also after an error. Reconcile publishes its job again."""
        with self._place_freed(delivery_tag):
            super().reject(delivery_tag, requeue)  # type: ignore[no-untyped-call]

    @contextmanager
    def _place_freed(self, delivery_tag: Any) -> Iterator[None]:
        try:
            yield
        except Exception:
            virtual.QoS.ack(self, delivery_tag)  # type: ignore[no-untyped-call]
            raise

    def restore_by_tag(self, tag: Any, client: Any = None, leftmost: bool = False) -> None:
        """As kombu's, whose error about a malformed message would keep it and those after it unacknowledged."""
        with self.channel.conn_or_acquire(client) as connected:
            stored = connected.hget(self.unacked_key, tag)
            text = _to_text(stored) if stored else ""
            reason = envelope_problem(text, unacknowledged=True) if stored else None
            if reason is None:
                super().restore_by_tag(tag, connected, leftmost)  # type: ignore[no-untyped-call]
            elif connected.hdel(self.unacked_key, tag):  # no other worker has done it
                connected.zrem(self.unacked_index_key, tag)
                set_aside(self.unacked_key, reason, text)


class Channel(redis.Channel):
    """Kombu's channel, which raises an error that Celery handles if its connection was closed."""

    QoS = QoS

    def _get_client(self) -> Any:
        return partial(Client, global_keyprefix=self.global_keyprefix)

    def basic_consume(self, queue: str, no_ack: bool, callback: Any, *args: Any, **options: Any) -> Any:
        """As kombu's. An error about a remote control command or an event drops this message and no more.

        Messages of queues are acknowledged, and the worker's consumer handles their errors.
        """
        handle = self._drop_after_error(callback) if no_ack else callback
        return super().basic_consume(queue, no_ack, handle, *args, **options)  # type: ignore[no-untyped-call]

    def _drop_after_error(self, callback: Any) -> Any:
        def handle(message: Any) -> None:
            try:
                callback(message)
            except Exception as error:
                if is_connection_error(error, self.connection_errors):
                    raise
                logger.exception("a message on a channel is dropped: %.200r", message.body)

        return handle

    @contextmanager
    def conn_or_acquire(self, client: Any = None) -> Iterator[Any]:
        """As kombu's. Raises redis.exceptions.ConnectionError once the connection is closed.

        A worker that lost Redis still has messages of the lost connection to acknowledge and to requeue. Kombu then
        reads an attribute that it has deleted, and the AttributeError would end the worker with all the tasks that it
        runs.
        """
        if client is None and getattr(self.connection, "client", None) is None:
            raise exceptions.ConnectionError("the connection to Redis was closed")
        with super().conn_or_acquire(client) as acquired:
            yield acquired


class Transport(redis.Transport):
    """Kombu's transport with this channel, which treats a refused command as a lost connection.

    A Redis that is a read-only replica during a failover, out of memory, or unable to write its disk replies to a
    command with an error. Kombu counts such replies among the errors of a channel, which end a worker, an
    acknowledgement or a remote control command; as errors of the connection, each of them is tried again.
    """

    Channel = Channel
    connection_errors = (*redis.Transport.connection_errors, exceptions.ResponseError)


class SentinelChannel(Channel, redis.SentinelChannel):
    """The same channel, connected to the current master of a group with Redis Sentinel."""


class SentinelTransport(Transport):
    """The same transport for a group with Redis Sentinel. The URL of the connection names all sentinels."""

    Channel = SentinelChannel

    def __init__(self, client: Any, **options: Any) -> None:
        super().__init__(client, **options)  # type: ignore[no-untyped-call]
        # After an error, kombu would switch to the URL of the next sentinel, and thereby to its own transport. The
        # channel queries all sentinels anyway.
        client.cycle = None


class Node(pidbox.Node):
    """The mailbox of a worker, for remote control."""

    def handle_message(self, body: Any, message: Any = None) -> Any:
        """As kombu's. After an error Celery would open the mailbox again, and lose the commands of that moment."""
        try:
            return super().handle_message(body, message)  # type: ignore[no-untyped-call]
        except Exception as error:
            if is_connection_error(error, self.channel.connection_errors):  # type: ignore[union-attr]
                raise
            logger.error("a remote control command is dropped, since it is malformed (%r): %.200r", error, body)


class Mailbox(pidbox.Mailbox):
    """The mailboxes of all workers."""

    node_cls = Node


class Control(control.Control):
    """Celery's client for remote control, with these mailboxes."""

    Mailbox = Mailbox


def _to_text(part: Any) -> str:
    return str(part, errors="replace") if isinstance(part, bytes) else str(part)
