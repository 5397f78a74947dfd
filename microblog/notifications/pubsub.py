"""Publish events to open pages through Redis, and count the open connections.

All processes publish to one Redis channel; each web process has one subscription, regardless of the number of its open
pages. An event names its topics. A page subscribes to the topics of its user, of operators, and of what it shows.
"""

from __future__ import annotations

import logging
import math
import os
import queue
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import orjson
import redis
from flask import Flask, current_app

from microblog.database import DatabaseUnavailable
from microblog.extensions import SiteRedis, db
from microblog.notifications.replay import event_from_change
from microblog.taskqueue.interface import TaskChange

logger = logging.getLogger(__name__)

CHANNEL = "events"
BACKLOG = 256  # events that are queued for a slow client before RESYNC replaces them
POLL_INTERVAL = 5.0  # seconds between two checks for remaining subscriptions
MAX_BACKOFF = 5.0  # seconds between two attempts to connect while Redis is unavailable
#: The topic of the changes of all tasks of all users.
OPERATORS = "operators"
#: Sent if events may have been missed; the page then requests ``/notifications?since=``.
RESYNC: dict[str, Any] = {"name": "resync"}
#: Ends each stream that receives it. It is not sent to the page, which then opens another stream.
END: dict[str, Any] = {"name": "end"}

PROCESSES = "listening"  # a set: the web processes that have reported streams
STREAM_COUNT = "listening:{}"  # by process; expires REPORT_LIFETIME seconds after the last report
REPORT_INTERVAL = 5.0  # seconds
REPORT_LIFETIME = 30  # seconds; a process that was killed is counted until then


class TooManyStreams(Exception):
    """Raised if a user has the maximum number of open streams in this process."""


def user_topic(user_id: int) -> str:
    """Return the topic of a user's own events."""
    return f"user:{user_id}"


def publish(app: Flask, topics: Iterable[str], event: dict[str, Any]) -> None:
    """Send `event` to the open pages that subscribe to any of `topics`. Its ``name`` is the kind of event.

    The change that it describes must be committed. If Redis is unavailable, the event is logged and dropped: the pages
    request it later.
    """
    payload = orjson.dumps({"topics": list(topics), "event": event})
    try:
        client: SiteRedis = app.extensions["redis"]
        client.publish(client.key(CHANNEL), payload)
    except redis.RedisError:
        logger.warning("Redis is unavailable; event not published: %s %s", event["name"], event.get("subject", ""))


def end_streams(user_id: int) -> None:
    """End the streams of a user's open pages. Each page reconnects, and is rejected if it no longer has access.

    Call it after the commit of the change in access.
    """
    publish(current_app, [user_topic(user_id)], END)


@contextmanager
def ignore_unavailable_database() -> Iterator[None]:
    """Context manager and decorator for code that reads the database to publish a committed change.

    An unavailable database is logged and not raised: the change itself succeeded, and the pages request it later.
    """
    try:
        yield
    except DatabaseUnavailable as error:
        db.session.rollback()
        logger.warning("the database is unavailable; a committed change is not published: %s", error.orig)


def publish_change(app: Flask, change: TaskChange) -> None:
    """Publish a task change to the open pages of operators and of the task's user, if it has one."""
    topics = [OPERATORS] if change.user_id is None else [OPERATORS, user_topic(change.user_id)]
    publish(app, topics, event_from_change(change))


class Subscription:
    """The events of some topics for one open page. An event with several of the topics is received once."""

    def __init__(self, hub: Hub, topics: frozenset[str]) -> None:
        self.topics = topics
        self._hub = hub
        self._events: queue.Queue[dict[str, Any]] = queue.Queue(maxsize=BACKLOG)
        self._ended = False

    def put(self, event: dict[str, Any]) -> None:
        """Add an event to the queue. If it is full, RESYNC replaces its content. END ends the subscription."""
        self._ended = self._ended or event == END
        try:
            self._events.put_nowait(event)
        except queue.Full:
            while not self._events.empty():
                self._events.get_nowait()
            self._events.put_nowait(RESYNC)

    def read(self, *, heartbeat: float, lifetime: float) -> Iterator[dict[str, Any] | None]:
        """Yield events as they arrive, or None after `heartbeat` seconds without one, for up to `lifetime` seconds."""
        end = time.monotonic() + lifetime
        while time.monotonic() < end:
            try:
                event = self._events.get(timeout=heartbeat)
            except queue.Empty:
                event = None
            if self._ended:
                return
            yield event

    def close(self) -> None:
        """Unsubscribe."""
        self._hub.unsubscribe(self)


class Hub:
    """One process's subscription to the channel, shared by all its open pages; idle while there are none.

    `max_streams` is the maximum number of streams of one user.
    """

    def __init__(self, client: SiteRedis, max_streams: float = math.inf) -> None:
        self._client = client
        self._max_streams = max_streams
        self._lock = threading.Lock()
        self._subscriptions: defaultdict[str, set[Subscription]] = defaultdict(set)
        self._running = False
        self._connection_count = ConnectionCount(client, self.open_streams)

    def subscribe(self, topics: Iterable[str], user_id: int | None = None) -> Subscription:
        """Subscribe to the events of all `topics` and to those of the user `user_id`. Raises TooManyStreams."""
        own = () if user_id is None else (user_topic(user_id),)
        subscription = Subscription(self, frozenset((*topics, *own)))
        with self._lock:
            # Only the user's own streams subscribe to this topic.
            if any(len(self._subscriptions.get(topic, ())) >= self._max_streams for topic in own):
                raise TooManyStreams
            for topic in subscription.topics:
                self._subscriptions[topic].add(subscription)
            if not self._running:
                self._running = True
                threading.Thread(target=self._run, name="event-hub", daemon=True).start()
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Unsubscribe. Calling it again has no effect."""
        with self._lock:
            for topic in subscription.topics:
                subscribers = self._subscriptions.get(topic, set())
                subscribers.discard(subscription)
                if not subscribers:
                    self._subscriptions.pop(topic, None)

    def open_streams(self) -> int:
        """Return the number of open streams."""
        with self._lock:
            return len(self._all_subscriptions())

    def _run(self) -> None:
        pause = 0.1
        catch_up = RESYNC  # events before the subscription were missed
        while not self._stop_if_idle():
            try:
                with self._client.pubsub(ignore_subscribe_messages=True) as channel:  # type: ignore[no-untyped-call]
                    channel.subscribe(self._client.key(CHANNEL))
                    self._send_all(catch_up)
                    pause = 0.1
                    while not self._stop_if_idle():
                        self._connection_count.report()
                        message = channel.get_message(timeout=POLL_INTERVAL)
                        if message is not None:
                            self._dispatch(message["data"])
                    self._connection_count.report(force=True)
            except redis.RedisError as error:
                logger.warning("Redis is unavailable (%s); reconnecting in %.1f s", error, pause)
                catch_up = END  # an END may have been missed: pages reconnect, and request the events they missed
                time.sleep(pause)
                pause = min(pause * 2, MAX_BACKOFF)

    def _stop_if_idle(self) -> bool:
        with self._lock:
            if not self._subscriptions:
                self._running = False
            return not self._subscriptions

    def _dispatch(self, payload: str) -> None:
        try:
            message = orjson.loads(payload)
            topics, event = {str(topic) for topic in message["topics"]}, message["event"]
        except (ValueError, KeyError, TypeError):
            logger.warning("a malformed message was received from %s; it is ignored", CHANNEL)
            return
        with self._lock:
            subscribers = {one for topic in topics for one in self._subscriptions.get(topic, ())}
        for subscription in subscribers:
            subscription.put(event)

    def _send_all(self, event: dict[str, Any]) -> None:
        with self._lock:
            subscriptions = self._all_subscriptions()
        for subscription in subscriptions:
            subscription.put(event)

    def _all_subscriptions(self) -> set[Subscription]:
        return {one for subscribers in self._subscriptions.values() for one in subscribers}


class ConnectionCount:
    """Reports the number of open streams of one web process, which `count` returns, to Redis."""

    def __init__(self, client: SiteRedis, count: Callable[[], int]) -> None:
        self._client = client
        self._count = count
        self._reported_at = -REPORT_INTERVAL

    def report(self, *, force: bool = False) -> None:
        """Report the number, if REPORT_INTERVAL has passed or `force` is true. An error of Redis is only logged."""
        if not force and time.monotonic() - self._reported_at < REPORT_INTERVAL:
            return
        self._reported_at = time.monotonic()
        try:
            self._store()
        except redis.RedisError as error:  # a Redis that refuses to write still delivers events
            logger.warning("the number of open streams is reported later: %s", error)

    def _store(self) -> None:
        process = f"{socket.gethostname()}:{os.getpid()}"
        processes, count = self._client.key(PROCESSES), self._client.key(STREAM_COUNT.format(process))
        with self._client.pipeline() as pipe:
            if streams := self._count():
                pipe.sadd(processes, process)
                pipe.set(count, streams, ex=REPORT_LIFETIME)
            else:
                pipe.srem(processes, process)
                pipe.delete(count)
            pipe.execute()


def count_open_streams(client: SiteRedis) -> int:
    """Return the number of open streams in all web processes. Raises redis.exceptions.RedisError."""
    processes: set[str] = client.smembers(client.key(PROCESSES))  # type: ignore[assignment]
    counts = {process: client.get(client.key(STREAM_COUNT.format(process))) for process in processes}
    gone = [process for process, count in counts.items() if count is None]
    if gone:
        client.srem(client.key(PROCESSES), *gone)
    return sum(int(str(count)) for count in counts.values() if count is not None)
