"""What happens among the workers, as it happens: Celery's events, and the progress that the engine announces."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import orjson
import redis
from celery.events.receiver import EventReceiver
from flask import Flask
from kombu.exceptions import OperationalError as BrokerAway

from microblog.notifications.live import CHANNEL
from microblog.taskqueue import states

#: An event: Celery's own as Celery sends it ("type", "timestamp", "hostname", "uuid", …), or one of ours, see below.
Event = dict[str, Any]

PROGRESS = "task-progress"  # of ours: a step counted on; has "root_id", "position", "current", "total", "percent", …
CHANGE = "task-change"  # of ours: a step changed its state, whether or not a worker had to do with it

AWAY = (redis.RedisError, BrokerAway, OSError)
PING_INTERVAL = 2.0  # seconds between two looks whether a silent Redis is still there
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0  # seconds between two attempts to reach a Redis that is away


class Events:
    """Hears Celery's events and the engine's announcements, in two threads that outlive a Redis that goes away.

    `on_event` gets each event. `on_redis` gets None whenever Redis answers, and a sentence whenever it does not; the
    same may come many times. Both are called from the threads, and must neither raise nor wait. What is said while
    Redis is away is lost: it keeps no events.
    """

    def __init__(self, app: Flask, on_event: Callable[[Event], None], on_redis: Callable[[str | None], None]) -> None:
        self._app = app
        self._on_event = on_event
        self._on_redis = on_redis
        self._stopped = threading.Event()

    def start(self) -> None:
        """Begin to listen."""
        for name, listen in (("celery-events", self._hear_celery), ("progress-events", self._hear_progress)):
            threading.Thread(target=self._keep, args=(listen,), name=name, daemon=True).start()

    def stop(self) -> None:
        """Stop listening, within two seconds; does not wait for it."""
        self._stopped.set()

    def _keep(self, listen: Callable[[Callable[[], None]], None]) -> None:
        """Call `listen` again whenever Redis went away under it; it is given what to call once it hears."""
        pauses = _Pauses()
        while not self._stopped.is_set():
            try:
                listen(pauses.reset)
            except AWAY as error:
                self._on_redis(str(error))
                self._stopped.wait(pauses.next())

    def _hear_celery(self, connected: Callable[[], None]) -> None:
        def ready() -> None:
            connected()
            self._on_redis(None)

        celery = self._app.extensions["celery"]
        self._ping()  # gives up sooner than Celery's connection
        with celery.connection_for_read() as connection:
            receiver = _Receiver(connection, app=celery, handlers={"*": self._on_event})
            receiver.ready, receiver.look, receiver.stopped = ready, self._look_after_redis, self._stopped
            receiver.capture(limit=None, timeout=None, wakeup=True)

    def _hear_progress(self, connected: Callable[[], None]) -> None:
        client: redis.Redis = self._app.extensions["redis"]
        with client.pubsub(ignore_subscribe_messages=True) as channel:  # type: ignore[no-untyped-call]
            channel.subscribe(CHANNEL)
            connected()
            while not self._stopped.is_set():
                message = channel.get_message(timeout=PING_INTERVAL)
                event = _announced(message["data"]) if message else None
                if event is not None:
                    self._on_event(event)

    def _look_after_redis(self) -> None:
        """A Redis that stands still closes no connection, so that silence would be all that is heard of it."""
        try:
            self._ping()
        except redis.RedisError as error:
            self._on_redis(str(error))
        else:
            self._on_redis(None)

    def _ping(self) -> None:
        self._app.extensions["redis"].ping()


class _Receiver(EventReceiver):
    """Celery's receiver, which tells when it hears, looks after Redis now and then, and can be stopped."""

    connect_max_retries = 1  # whoever made it tries again
    ready: Callable[[], None]
    look: Callable[[], None]
    stopped: threading.Event
    _looked_at = 0.0

    @property
    def should_stop(self) -> bool:
        return self.stopped.is_set()

    def on_consume_ready(self, *args: Any, **kwargs: Any) -> None:
        super().on_consume_ready(*args, **kwargs)
        self._looked_at = time.monotonic()
        self.ready()

    def on_iteration(self) -> None:
        if time.monotonic() - self._looked_at > PING_INTERVAL:
            self.look()
            self._looked_at = time.monotonic()


class _Pauses:
    """Pauses that double, until it is reset."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._next = FIRST_PAUSE

    def next(self) -> float:
        pause, self._next = self._next, min(self._next * 2, LONGEST_PAUSE)
        return pause


def _announced(payload: str) -> Event | None:
    """The event behind a message of the channel; None if it is of another form."""
    try:
        announced = orjson.loads(payload)["event"]
        if announced["name"] != "task":
            return None
        change, at = announced["data"], float(announced["timestamp"])
        event = {"root_id": change["id"], "position": int(change["position"]), "state": str(change["state"])}
        progress = change["progress"]
        if event["state"] == states.PROGRESS and progress is not None:
            counted = {name: progress[name] for name in ("current", "total", "percent", "message")}
            return {"type": PROGRESS, "timestamp": at} | event | counted
    except (ValueError, KeyError, TypeError):
        return None
    return {"type": CHANGE, "timestamp": at} | event


@contextmanager
def crashes_of_threads(crashed: Callable[[BaseException], None]) -> Iterator[None]:
    """Inside the block, an error that ends a thread is given to `crashed`: nobody would miss a thread that is gone."""

    def hook(arguments: threading.ExceptHookArgs) -> None:
        if arguments.exc_value is not None:
            crashed(arguments.exc_value)

    before, threading.excepthook = threading.excepthook, hook
    try:
        yield
    finally:
        threading.excepthook = before
