"""Kombu's Redis transport: closed connections, refused commands and malformed messages terminate no worker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from kombu.transport import redis
from redis import exceptions

from microblog.taskqueue.consumer import envelope_problem, set_aside


class Client(redis.PrefixedStrictRedis):
    """The client of a channel. It sets messages aside that kombu cannot read, whose errors would terminate a worker."""

    def parse_response(self, connection: Any, command_name: str, **options: Any) -> Any:
        """As redis-py's; a queue whose message is set aside seems to be empty."""
        response = super().parse_response(connection, command_name, **options)  # type: ignore[no-untyped-call]
        if command_name == "BRPOP" and response:
            queue, text = (str(part, errors="replace") if isinstance(part, bytes) else part for part in response)
            if reason := envelope_problem(text):
                set_aside(queue, reason, text)
                return None
        return response


class Channel(redis.Channel):
    """Kombu's channel, which raises an error that Celery handles if its connection was closed."""

    def _get_client(self) -> Any:
        return partial(Client, global_keyprefix=self.global_keyprefix)

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
