"""Receive, filter and format Celery's events and the engine's announcements of progress."""

from __future__ import annotations

import select
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from queue import Empty, SimpleQueue
from typing import Any

import orjson
import redis
import sqlalchemy as sa
from celery.events.receiver import EventReceiver
from flask import Flask

from microblog.database import DatabaseUnavailable
from microblog.extensions import BROKER_UNAVAILABLE, SiteRedis, db
from microblog.monitoring import output
from microblog.notifications.pubsub import CHANNEL
from microblog.taskqueue import states
from microblog.taskqueue.models import Task
from microblog.validators import MAX_ID, is_storable

#: An event: as Celery sends it ("type", "timestamp", "hostname", "uuid", …), or of one of the two types below.
Event = dict[str, Any]

PROGRESS = "task-progress"  # a step made progress; has "root_id", "position", "current", "total", "percent", …
CHANGE = "task-change"  # a step changed its state, with or without a worker

PING_INTERVAL = 2.0  # seconds between two checks that a silent Redis still responds
MIN_BACKOFF, MAX_BACKOFF = 0.1, 2.0  # seconds between two attempts to connect to an unavailable Redis


class Events:
    """Receiver of Celery's events and the engine's announcements, in two threads that reconnect to Redis.

    `on_event` is called with each event. `on_redis` is called with None when Redis responds, and with a message when
    it does not; calls may repeat the same value. Both are called from the threads, and must neither raise nor block.
    Events that are sent while Redis is unavailable are lost, since Redis does not store them.
    """

    def __init__(self, app: Flask, on_event: Callable[[Event], None], on_redis: Callable[[str | None], None]) -> None:
        self._app = app
        self._on_event = on_event
        self._on_redis = on_redis
        self._stopped = threading.Event()

    def start(self) -> None:
        """Start listening."""
        for name, listen in (("celery-events", self._receive_celery), ("progress-events", self._receive_progress)):
            threading.Thread(target=self._reconnect, args=(listen,), name=name, daemon=True).start()

    def stop(self) -> None:
        """Stop listening within two seconds; returns at once."""
        self._stopped.set()

    def _reconnect(self, listen: Callable[[Callable[[], None]], None]) -> None:
        """Call `listen` again each time it loses Redis; its argument is a function to call once it is connected."""
        backoff = _Backoff()
        while not self._stopped.is_set():
            try:
                listen(backoff.reset)
            except BROKER_UNAVAILABLE as error:
                self._on_redis(str(error))
                self._stopped.wait(backoff.next())

    def _receive_celery(self, connected: Callable[[], None]) -> None:
        def ready() -> None:
            connected()
            self._on_redis(None)

        celery = self._app.extensions["celery"]
        self._ping()  # times out sooner than Celery's connection
        with celery.connection_for_read() as connection:
            receiver = _Receiver(connection, app=celery, handlers={"*": self._pass_on})
            receiver.ready, receiver.check_redis, receiver.stopped = ready, self._check_redis, self._stopped
            receiver.capture(limit=None, timeout=None, wakeup=True)

    def _receive_progress(self, connected: Callable[[], None]) -> None:
        client: SiteRedis = self._app.extensions["redis"]
        with client.pubsub(ignore_subscribe_messages=True) as channel:  # type: ignore[no-untyped-call]
            channel.subscribe(client.key(CHANNEL))
            connected()
            while not self._stopped.is_set():
                message = channel.get_message(timeout=PING_INTERVAL)
                event = _parse_message(message["data"]) if message else None
                if event is not None:
                    self._pass_on(event)

    def _pass_on(self, event: Event) -> None:
        if is_valid(event):
            self._on_event(event)

    def _check_redis(self) -> None:
        """Report whether Redis responds: one that hangs closes no connection, so its silence would go unnoticed."""
        try:
            self._ping()
        except redis.RedisError as error:
            self._on_redis(str(error))
        else:
            self._on_redis(None)

    def _ping(self) -> None:
        self._app.extensions["redis"].ping()


class _Receiver(EventReceiver):
    """Celery's event receiver, which reports when it is connected, checks Redis regularly, and can be stopped."""

    connect_max_retries = 1  # Events reconnects
    ready: Callable[[], None]
    check_redis: Callable[[], None]
    stopped: threading.Event
    _checked_at = 0.0

    @property
    def should_stop(self) -> bool:
        return self.stopped.is_set()

    def on_consume_ready(self, *args: Any, **kwargs: Any) -> None:
        super().on_consume_ready(*args, **kwargs)
        self._checked_at = time.monotonic()
        self.ready()

    def on_iteration(self) -> None:
        if time.monotonic() - self._checked_at > PING_INTERVAL:
            self.check_redis()
            self._checked_at = time.monotonic()


class _Backoff:
    """Pauses that double until reset() is called."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._next = MIN_BACKOFF

    def next(self) -> float:
        pause, self._next = self._next, min(self._next * 2, MAX_BACKOFF)
        return pause


def _parse_message(payload: str) -> Event | None:
    """Return the event in a message of the channel; None if the message has another format."""
    try:
        announcement = orjson.loads(payload)["event"]
        if announcement["name"] != "task":
            return None
        change, at = announcement["data"], float(announcement["timestamp"])
        event = {"root_id": change["id"], "position": int(change["position"]), "state": str(change["state"])}
        progress = change["progress"]
        if event["state"] == states.PROGRESS and progress is not None:
            counted = {name: progress[name] for name in ("current", "total", "percent", "message")}
            return {"type": PROGRESS, "timestamp": at} | event | counted
    except (ValueError, KeyError, TypeError):
        return None
    return {"type": CHANGE, "timestamp": at} | event


@contextmanager
def report_thread_crashes(crashed: Callable[[BaseException], None]) -> Iterator[None]:
    """Within the block, pass an error that ends a thread to `crashed`; it would go unnoticed otherwise."""

    def hook(arguments: threading.ExceptHookArgs) -> None:
        if arguments.exc_value is not None:
            crashed(arguments.exc_value)

    previous_hook, threading.excepthook = threading.excepthook, hook
    try:
        yield
    finally:
        threading.excepthook = previous_hook


MAX_CACHED_TASKS = 10_000  # tasks whose data is cached
POLL_INTERVAL = 0.5  # seconds between two checks that stdout still has a reader
SILENCE_TIMEOUT = 6.0  # seconds without a heartbeat, which workers send every two, after which none seems to run

_STATES = {
    "task-succeeded": states.SUCCESS,
    "task-failed": states.FAILURE,
    "task-retried": states.RETRY,
    "task-revoked": states.REVOKED,
    PROGRESS: states.PROGRESS,
}
_COLOURS = {kind: output.STATE_COLOURS[state] for kind, state in _STATES.items()} | {
    "task-rejected": "yellow",
    "worker-offline": "red",
    "worker-online": "green",
}
_TEXTS = ("type", "uuid", "root_id", "name", "hostname")
_DETAILS = ("runtime", "exception", "eta", "retries", "args", "kwargs", "result", "signum", "expired", "terminated")


@dataclass(frozen=True)
class TaskInfo:
    """Data of a task that events omit: its `name`, and in `root_id` the job that it is a step of."""

    id: str
    root_id: str
    name: str


@dataclass(frozen=True)
class EventFilter:
    """Filter of events; None matches all. Events of workers have neither a task nor a job."""

    task: str | None = None
    job: str | None = None
    worker: str | None = None

    def matches(self, event: Event) -> bool:
        """Return whether `event`, as completed by TaskLookup.complete(), matches."""
        return (
            (self.task is None or event.get("name") == self.task)
            and (self.job is None or self.job in (event.get("root_id"), event.get("uuid")))
            and (self.worker is None or event.get("hostname") == self.worker)
        )


class TaskLookup:
    """Cache of task data, from earlier events and from rows. Requires an app context."""

    def __init__(self) -> None:
        self._by_id: OrderedDict[str, TaskInfo] = OrderedDict()
        self._by_step: OrderedDict[tuple[str, int], TaskInfo] = OrderedDict()
        self._worker_of: OrderedDict[str, str] = OrderedDict()

    def complete(self, event: Event) -> Event:
        """Return `event` with the `name`, `root_id`, `uuid` and `hostname` of its task, as far as they are known."""
        if not event["type"].startswith("task-"):
            return event
        task = self._find(event)
        if task is None:
            return event
        if "hostname" in event:
            _store(self._worker_of, task.id, event["hostname"])
        added = {"uuid": task.id, "root_id": task.root_id, "name": task.name}
        worker = self._worker_of.get(task.id)
        return event | added | ({"hostname": worker} if worker else {})

    def root_of(self, task_id: str) -> str:
        """Return the id of the job that the task is a step of; the id of the task if its job is unknown."""
        task = self._by_id.get(task_id) or self._fetch(Task.id == task_id)
        return task.root_id if task else task_id

    def _find(self, event: Event) -> TaskInfo | None:
        task_id = event.get("uuid")
        if task_id is None:
            step = (event["root_id"], event["position"])
            return self._by_step.get(step) or self._fetch(Task.root_id == step[0], Task.position == step[1])
        if event.get("name"):
            task = TaskInfo(task_id, event.get("root_id") or task_id, event["name"])
            _store(self._by_id, task_id, task)
            return task
        return self._by_id.get(task_id) or self._fetch(Task.id == task_id)

    def _fetch(self, *conditions: sa.ColumnElement[bool]) -> TaskInfo | None:
        columns = (Task.id, Task.root_id, Task.name, Task.position, Task.worker)
        try:
            row = db.session.execute(sa.select(*columns).where(*conditions)).first()
        except DatabaseUnavailable:  # the event is shown without this data
            db.session.rollback()
            return None
        finally:
            db.session.remove()
        if row is None:
            return None
        task = TaskInfo(row.id, row.root_id, row.name)
        _store(self._by_id, row.id, task)
        _store(self._by_step, (row.root_id, row.position), task)
        if row.worker:
            _store(self._worker_of, row.id, row.worker)
        return task


class EventTail:
    """Stream of the events of `app`, for as long as it is iterated over."""

    def __init__(self, app: Flask, filters: EventFilter) -> None:
        self._app = app
        self._filters = filters
        self._received: SimpleQueue[Event | BaseException | str | None] = SimpleQueue()
        self._redis_error: str | None = ""  # empty before the first report
        self._worker_seen = False

    def read(self) -> Iterator[Event | str]:
        """Yield the matching events, and messages for people about Redis and the workers.

        Ends when stdout no longer has a reader.
        """
        lookup = TaskLookup()
        filters = self._filters
        if filters.job is not None:
            filters = EventFilter(filters.task, lookup.root_of(filters.job), filters.worker)
        events = Events(self._app, self._received.put, self._received.put)
        with report_thread_crashes(self._received.put):
            events.start()
            try:
                yield from self._stream(lookup, filters)
            finally:
                events.stop()

    def _stream(self, lookup: TaskLookup, filters: EventFilter) -> Iterator[Event | str]:
        silent_for = 0.0
        while not is_stdout_closed():
            try:
                item = self._received.get(timeout=POLL_INTERVAL)
            except Empty:
                silent_for += POLL_INTERVAL
                if silent_for >= SILENCE_TIMEOUT and self._redis_error is None and not self._worker_seen:
                    self._worker_seen = True  # report it only once
                    yield "No worker has sent an event yet; still listening."
                continue
            if isinstance(item, BaseException):
                raise item
            if isinstance(item, dict):
                self._worker_seen = self._worker_seen or "hostname" in item
                if item["type"] != CHANGE and filters.matches(event := lookup.complete(item)):
                    yield event
            else:
                yield from self._report_redis(item)

    def _report_redis(self, error: str | None) -> Iterator[str]:
        previous, self._redis_error = self._redis_error, error
        if error is not None and not previous:
            yield f"Redis is unavailable ({error}); reconnecting. Events sent meanwhile are lost."
        elif error is None and previous:
            yield "Redis is back."


def event_line(event: Event) -> str:
    """Format an event for people: its time, type, task, worker and details."""
    at = datetime.fromtimestamp(event["timestamp"], UTC)
    kind = event["type"]
    parts = [f"{at:%H:%M:%S}.{at.microsecond // 1000:03}", f"{kind:<16}"]
    if kind.startswith("task-"):
        parts.append(f"{event.get('name') or '?'}[{event.get('uuid') or event.get('root_id')}]")
    if event.get("hostname"):
        parts.append(event["hostname"])
    if kind == PROGRESS:
        parts.append(f"{event['percent']}% {event['message'] or _counted(event)}")
    elif kind == "worker-heartbeat":
        parts.append(f"active {event.get('active')}, processed {event.get('processed')}, load {event.get('loadavg')}")
    parts += [f"{name}={_short(event[name])}" for name in _DETAILS if event.get(name) not in (None, "", False, 0)]
    return output.one_line("  ".join(parts))


def is_valid(event: Event) -> bool:
    """Return whether an event, which anyone with access to Redis may have sent, can be shown and looked up."""
    try:
        event_line(event)
        sum((event.get("loadavg") or []) + [event.get(name) or 0 for name in ("freq", "active", "processed")])
        named = not event["type"].startswith("task-") or event.get("uuid") is not None
        return (named or (event["root_id"] is not None and 0 <= event["position"] <= MAX_ID)) and all(
            is_storable(event[name]) for name in _TEXTS if event.get(name) is not None
        )
    except Exception:  # a field is missing, or of another type
        return False


def event_colour(event: Event) -> str | None:
    """Return the colour of the event's line; None for the frequent types."""
    return _COLOURS.get(event["type"])


def is_stdout_closed() -> bool:
    """Return whether stdout is a pipe that no longer has a reader."""
    try:
        watched = select.poll()
        watched.register(sys.stdout.fileno(), 0)
    except (OSError, ValueError):  # not a file, as in a test runner
        return False
    return any(flags & (select.POLLERR | select.POLLHUP) for _fd, flags in watched.poll(0))


def _counted(event: Event) -> str:
    total = f" of {event['total']:,}" if event["total"] else ""
    return f"{event['current']:,}{total}"


def _short(value: Any) -> str:
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    return text if len(text) <= 80 else f"{text[:79]}…"


def _store(cache: OrderedDict[Any, Any], key: Any, value: Any) -> None:
    cache[key] = value
    if len(cache) > MAX_CACHED_TASKS:
        cache.popitem(last=False)
