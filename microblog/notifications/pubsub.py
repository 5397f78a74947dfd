"""Publish events to open pages through Redis, and count the open connections.

All processes publish to one Redis channel; each web process has one subscription, whatever the number of its open
pages. An event names its topics, and a page subscribes to topics: that of its user, of the operators, of what it shows.
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
from microblog.extensions import db
from microblog.notifications.replay import event_from_change
from microblog.taskqueue.interface import TaskChange

logger = logging.getLogger(__name__)

CHANNEL = "microblog:events"
BACKLOG = 256  # events that a slow reader may be behind before it is told to ask for what it missed
POLL = 5.0  # seconds between two looks whether anybody still listens
LONGEST_PAUSE = 5.0  # seconds between two attempts to reach a Redis that is away
#: The topic of every task's changes, whosever it is.
OPERATORS = "operators"
#: Sent where events may have been missed: the page then asks ``/notifications?since=``.
RESYNC: dict[str, Any] = {"name": "resync"}
#: Ends each stream that it reaches; it is not sent to the page, which then asks for another.
END: dict[str, Any] = {"name": "end"}


class TooManyStreams(Exception):
    """A user has as many streams open in this process as one may have."""


def topic_of(user_id: int) -> str:
    """The topic of a user's own events."""
    return f"user:{user_id}"


def publish(app: Flask, topics: Iterable[str], event: dict[str, Any]) -> None:
    """Send `event` to the open pages that listen to any of `topics`: its ``name`` says what kind of event it is.

    Redis away is no error: the pages ask later. What the event tells of must be committed by then.
    """
    payload = orjson.dumps({"topics": list(topics), "event": event})
    try:
        app.extensions["redis"].publish(CHANNEL, payload)
    except redis.RedisError:
        logger.warning("Redis is away; an event is not announced: %s %s", event["name"], event.get("subject", ""))


def end_streams(user_id: int) -> None:
    """Let each of a user's open pages ask for its stream again, and be refused if it may no longer have it.

    Call it after the commit of what changed that.
    """
    publish(current_app, [topic_of(user_id)], END)


@contextmanager
def never_raises() -> Iterator[None]:
    """Around what reads the database to tell of something that is committed; also a decorator.

    The database away is no error: nobody shall hear that what is kept went wrong. The pages ask later.
    """
    try:
        yield
    except DatabaseUnavailable as error:
        db.session.rollback()
        logger.warning("the database is unavailable; a committed change is not announced: %s", error.orig)


def publish_change(app: Flask, change: TaskChange) -> None:
    """Tell the open pages of the operators and of the change's user, if it has one."""
    topics = [OPERATORS] if change.user_id is None else [OPERATORS, topic_of(change.user_id)]
    publish(app, topics, event_from_change(change))


class Subscription:
    """The events of some topics for one open page; one that has several of them comes once."""

    def __init__(self, hub: Hub, topics: frozenset[str]) -> None:
        self.topics = topics
        self._hub = hub
        self._events: queue.Queue[dict[str, Any]] = queue.Queue(maxsize=BACKLOG)
        self._ended = False

    def put(self, event: dict[str, Any]) -> None:
        """Hand over an event; a reader that is too far behind gets RESYNC in place of its backlog. END is the last."""
        self._ended = self._ended or event == END
        try:
            self._events.put_nowait(event)
        except queue.Full:
            while not self._events.empty():
                self._events.get_nowait()
            self._events.put_nowait(RESYNC)

    def read(self, *, heartbeat: float, lifetime: float) -> Iterator[dict[str, Any] | None]:
        """The events as they come, None after each `heartbeat` seconds without one, for `lifetime` seconds at most."""
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
        """Stop listening."""
        self._hub.leave(self)


class Hub:
    """One process's subscription to the channel, shared by all its open pages; idle while there are none.

    `most` is how many of them a user may have.
    """

    def __init__(self, client: redis.Redis, most: float = math.inf) -> None:
        self._client = client
        self._most = most
        self._lock = threading.Lock()
        self._subscriptions: defaultdict[str, set[Subscription]] = defaultdict(set)
        self._running = False
        self._audience = ConnectionCount(client, self.open_streams)

    def join(self, topics: Iterable[str], reader_id: int | None = None) -> Subscription:
        """Listen to the events of all `topics`, and to those of the user `reader_id`. Raises TooManyStreams."""
        own = () if reader_id is None else (topic_of(reader_id),)
        subscription = Subscription(self, frozenset((*topics, *own)))
        with self._lock:
            # Nobody else listens to a user's own events.
            if any(len(self._subscriptions.get(topic, ())) >= self._most for topic in own):
                raise TooManyStreams
            for topic in subscription.topics:
                self._subscriptions[topic].add(subscription)
            if not self._running:
                self._running = True
                threading.Thread(target=self._run, name="event-hub", daemon=True).start()
        return subscription

    def leave(self, subscription: Subscription) -> None:
        """Stop listening; once is enough, twice does no harm."""
        with self._lock:
            for topic in subscription.topics:
                listening = self._subscriptions.get(topic, set())
                listening.discard(subscription)
                if not listening:
                    self._subscriptions.pop(topic, None)

    def open_streams(self) -> int:
        """Return the number of open streams."""
        with self._lock:
            return len(self._everybody())

    def _run(self) -> None:
        pause = 0.1
        unheard = RESYNC  # for what was said before Redis heard us
        while not self._nobody_listens():
            try:
                with self._client.pubsub(ignore_subscribe_messages=True) as channel:  # type: ignore[no-untyped-call]
                    channel.subscribe(CHANNEL)
                    self._send_all(unheard)
                    pause = 0.1
                    while not self._nobody_listens():
                        self._audience.tell()
                        message = channel.get_message(timeout=POLL)
                        if message is not None:
                            self._dispatch(message["data"])
                    self._audience.tell(at_once=True)
            except redis.RedisError as error:
                logger.warning("Redis is away (%s); trying again in %.1f s", error, pause)
                unheard = END  # the end of a stream may be among it: each page asks anew, and then for what it missed
                time.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)

    def _nobody_listens(self) -> bool:
        with self._lock:
            if not self._subscriptions:
                self._running = False
            return not self._subscriptions

    def _dispatch(self, payload: str) -> None:
        try:
            message = orjson.loads(payload)
            topics, event = {str(topic) for topic in message["topics"]}, message["event"]
        except (ValueError, KeyError, TypeError):
            logger.warning("a message of another form came through %s; it is left out", CHANNEL)
            return
        with self._lock:
            listening = {one for topic in topics for one in self._subscriptions.get(topic, ())}
        for subscription in listening:
            subscription.put(event)

    def _send_all(self, event: dict[str, Any]) -> None:
        with self._lock:
            everybody = self._everybody()
        for subscription in everybody:
            subscription.put(event)

    def _everybody(self) -> set[Subscription]:
        return {one for listening in self._subscriptions.values() for one in listening}


PROCESSES = "microblog:listening"  # a set: the web processes that have told of listeners
LISTENERS = "microblog:listening:{}"  # by process; gone when it has not told for TOLD_FOR seconds
TELL_EVERY = 5.0  # seconds
TOLD_FOR = 30  # seconds; a process that was killed is counted until then


class ConnectionCount:
    """Publish the number of open streams of one web process, which `count` returns."""

    def __init__(self, client: redis.Redis, count: Callable[[], int]) -> None:
        self._client = client
        self._count = count
        self._told_at = -TELL_EVERY

    def tell(self, *, at_once: bool = False) -> None:
        """Tell how many there are, `at_once` or if it is time to. Raises redis.exceptions.RedisError."""
        if not at_once and time.monotonic() - self._told_at < TELL_EVERY:
            return
        process = f"{socket.gethostname()}:{os.getpid()}"
        with self._client.pipeline() as pipe:
            if listeners := self._count():
                pipe.sadd(PROCESSES, process)
                pipe.set(LISTENERS.format(process), listeners, ex=TOLD_FOR)
            else:
                pipe.srem(PROCESSES, process)
                pipe.delete(LISTENERS.format(process))
            pipe.execute()
        self._told_at = time.monotonic()


def count_listeners(client: redis.Redis) -> int:
    """Return the number of open streams in all web processes. Raises redis.exceptions.RedisError."""
    processes: set[str] = client.smembers(PROCESSES)  # type: ignore[assignment]
    told = {process: client.get(LISTENERS.format(process)) for process in processes}
    gone = [process for process, count in told.items() if count is None]
    if gone:
        client.srem(PROCESSES, *gone)
    return sum(int(str(count)) for count in told.values() if count is not None)
