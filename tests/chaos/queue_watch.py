"""Watches the queues for jobs that are published again although their messages wait there."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import NamedTuple

import orjson
from redis.exceptions import RedisError

from microblog.extensions import SiteRedis
from microblog.taskqueue.celery_settings import QUEUES

INTERVAL = 0.2  # seconds between two looks at the queues
SETTLED = 2.0  # seconds after which a message counts as waiting: it may just have been given back by a worker


class Message(NamedTuple):
    """A message in a queue: the id of its task, its number of retries, and the time of launch.publish()."""

    task_id: str
    retries: int
    published_at: str


class Republication(NamedTuple):
    """A second message of a task that was published at the time `at`, while its first waited since `waiting_since`."""

    task_id: str
    waiting_since: float
    at: float


class QueueWatch:
    """A thread that records republications until stop() is called; `waiting` are the messages of its last look."""

    def __init__(self, client: SiteRedis) -> None:
        self.republications: list[Republication] = []
        self._client = client
        self.waiting: dict[Message, float] = {}  # since when each message has been seen in its queue
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="queue-watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread."""
        self._stopping.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stopping.wait(INTERVAL):
            try:
                messages = set(self._messages())
            except RedisError:
                messages = set()
            now = time.time()
            self.republications += self._republications(messages, now)
            self.waiting = {message: self.waiting.get(message, now) for message in messages}

    def _messages(self) -> Iterator[Message]:
        """Yield the messages in the queues, except those of beat, which have no time, and those of faults."""
        for queue in QUEUES:
            for text in self._client.lrange(self._client.key(queue), 0, -1):
                headers = orjson.loads(text)["headers"]
                if "published_at" in headers and "copied" not in headers:
                    yield Message(headers["id"], headers["retries"], headers["published_at"])

    def _republications(self, messages: set[Message], now: float) -> Iterator[Republication]:
        # A message of an earlier retry is superseded and may wait when the next retry is published. An older message
        # was given back by a worker.
        waiting = {message[:2]: message for message in sorted(messages & self.waiting.keys(), reverse=True)}
        for message in messages - self.waiting.keys():
            first = waiting.get(message[:2], message)
            if first.published_at < message.published_at and now - self.waiting[first] > SETTLED:
                yield Republication(message.task_id, self.waiting[first], now)
