"""Celery's events and the progress that the engine announces: received, filtered, and printed as lines."""

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
from microblog.extensions import BROKER_UNAVAILABLE, db
from microblog.monitoring import output
from microblog.notifications.pubsub import CHANNEL
from microblog.taskqueue import states
from microblog.taskqueue.models import Task

#: An event: Celery's own as Celery sends it ("type", "timestamp", "hostname", "uuid", …), or one of ours, see below.
Event = dict[str, Any]

PROGRESS = "task-progress"  # of ours: a step counted on; has "root_id", "position", "current", "total", "percent", …
CHANGE = "task-change"  # of ours: a step changed its state, whether or not a worker had to do with it

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
            except BROKER_UNAVAILABLE as error:
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


MAX_KNOWN = 10_000  # tasks whose names are remembered
POLL = 0.5  # seconds between two looks whether anybody still reads what is printed
QUIET = 6.0  # seconds without a sign of life, which workers give every two, after which there are none

_COLOURS = {
    "task-succeeded": "green", "task-failed": "red", "task-retried": "magenta", "task-revoked": "yellow",
    "task-rejected": "yellow", PROGRESS: "cyan", "worker-offline": "red", "worker-online": "green",
}  # fmt: skip
_DETAILS = ("runtime", "exception", "eta", "retries", "args", "kwargs", "result", "signum", "expired", "terminated")


@dataclass(frozen=True)
class KnownTask:
    """Data of a task that events omit: its `name`, and the job that it is a step of."""

    id: str
    root_id: str
    name: str


@dataclass(frozen=True)
class EventFilter:
    """Filter of events; None matches all. Events of workers have neither a task nor a job."""

    task: str | None = None
    job: str | None = None
    worker: str | None = None

    def let_through(self, event: Event) -> bool:
        """Return whether `event`, with what TaskLookup.complete() adds, is asked for."""
        return (
            (self.task is None or event.get("name") == self.task)
            and (self.job is None or self.job in (event.get("root_id"), event.get("uuid")))
            and (self.worker is None or event.get("hostname") == self.worker)
        )


class TaskLookup:
    """Knows tasks by what earlier events told, and by their rows. To be used in an app context."""

    def __init__(self) -> None:
        self._by_id: OrderedDict[str, KnownTask] = OrderedDict()
        self._by_step: OrderedDict[tuple[str, int], KnownTask] = OrderedDict()
        self._worker_of: OrderedDict[str, str] = OrderedDict()

    def complete(self, event: Event) -> Event:
        """The event of a task with its `name`, `root_id`, `uuid` and `hostname`, as far as they are known."""
        if not event["type"].startswith("task-"):
            return event
        known = self._known(event)
        if known is None:
            return event
        if "hostname" in event:
            _remember(self._worker_of, known.id, event["hostname"])
        added = {"uuid": known.id, "root_id": known.root_id, "name": known.name}
        worker = self._worker_of.get(known.id)
        return event | added | ({"hostname": worker} if worker else {})

    def root_of(self, task_id: str) -> str:
        """The job that the task is a step of: its own id if nobody knows better."""
        known = self._by_id.get(task_id) or self._look_up(Task.id == task_id)
        return known.root_id if known else task_id

    def _known(self, event: Event) -> KnownTask | None:
        task_id = event.get("uuid")
        if task_id is None:
            step = (event["root_id"], event["position"])
            return self._by_step.get(step) or self._look_up(Task.root_id == step[0], Task.position == step[1])
        if event.get("name"):
            known = KnownTask(task_id, event.get("root_id") or task_id, event["name"])
            _remember(self._by_id, task_id, known)
            return known
        return self._by_id.get(task_id) or self._look_up(Task.id == task_id)

    def _look_up(self, *conditions: sa.ColumnElement[bool]) -> KnownTask | None:
        columns = (Task.id, Task.root_id, Task.name, Task.position, Task.worker)
        try:
            row = db.session.execute(sa.select(*columns).where(*conditions)).first()
        except DatabaseUnavailable:  # the event is shown without
            db.session.rollback()
            return None
        finally:
            db.session.remove()
        if row is None:
            return None
        known = KnownTask(row.id, row.root_id, row.name)
        _remember(self._by_id, row.id, known)
        _remember(self._by_step, (row.root_id, row.position), known)
        if row.worker:
            _remember(self._worker_of, row.id, row.worker)
        return known


class EventTail:
    """The events of `app` as they come, until the block that iterates over them ends."""

    def __init__(self, app: Flask, filters: EventFilter) -> None:
        self._app = app
        self._filters = filters
        self._heard: SimpleQueue[Event | BaseException | str | None] = SimpleQueue()
        self._said: str | None = ""
        self._worker_heard = False

    def read(self) -> Iterator[Event | str]:
        """Events that are asked for, and sentences about Redis and the workers, which are for people.

        Ends once nobody reads stdout any more.
        """
        directory = TaskLookup()
        filters = self._filters
        if filters.job is not None:
            filters = EventFilter(filters.task, directory.root_of(filters.job), filters.worker)
        events = Events(self._app, self._heard.put, self._heard.put)
        with crashes_of_threads(self._heard.put):
            events.start()
            try:
                yield from self._all(directory, filters)
            finally:
                events.stop()

    def _all(self, directory: TaskLookup, filters: EventFilter) -> Iterator[Event | str]:
        silent_for = 0.0
        while not is_reader_gone():
            try:
                heard = self._heard.get(timeout=POLL)
            except Empty:
                silent_for += POLL
                if silent_for >= QUIET and self._said is None and not self._worker_heard:
                    self._worker_heard = True  # once is enough
                    yield "No worker has given a sign of life yet; listening on."
                continue
            if isinstance(heard, BaseException):
                raise heard
            if isinstance(heard, dict):
                self._worker_heard = self._worker_heard or "hostname" in heard
                if heard["type"] != CHANGE and filters.let_through(event := directory.complete(heard)):
                    yield event
            else:
                yield from self._redis_is(heard)

    def _redis_is(self, error: str | None) -> Iterator[str]:
        before, self._said = self._said, error
        if error is not None and not before:
            yield f"Redis is away ({error}); trying again. What happens meanwhile is not told."
        elif error is None and before:
            yield "Redis is back."


def event_line(event: Event) -> str:
    """An event for people: when, what, which task of which job, where, and what else it tells."""
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


def state_colour(event: Event) -> str | None:
    """The colour of its line; None for those that come all the time."""
    return _COLOURS.get(event["type"])


def is_reader_gone() -> bool:
    """Return whether stdout is a pipe that nobody reads from any more."""
    try:
        watched = select.poll()
        watched.register(sys.stdout.fileno(), 0)
    except (OSError, ValueError):  # not a file at all, as under a test's runner
        return False
    return any(flags & (select.POLLERR | select.POLLHUP) for _fd, flags in watched.poll(0))


def _counted(event: Event) -> str:
    total = f" of {event['total']:,}" if event["total"] else ""
    return f"{event['current']:,}{total}"


def _short(value: Any) -> str:
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    return text if len(text) <= 80 else f"{text[:79]}…"


def _remember(memory: OrderedDict[Any, Any], key: Any, value: Any) -> None:
    memory[key] = value
    if len(memory) > MAX_KNOWN:
        memory.popitem(last=False)
