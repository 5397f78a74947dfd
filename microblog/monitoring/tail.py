"""Events one by one: which of them are asked for, what else is known of their tasks, and each as a line."""

from __future__ import annotations

import select
import sys
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from queue import Empty, SimpleQueue
from typing import Any

import sqlalchemy as sa
from flask import Flask
from sqlalchemy.exc import DBAPIError

from microblog.extensions import db
from microblog.monitoring import display
from microblog.monitoring.events import CHANGE, PROGRESS, Event, Events, crashes_of_threads
from microblog.taskqueue.models import Task

MAX_KNOWN = 10_000  # tasks whose names are remembered
POLL = 0.5  # seconds between two looks whether anybody still reads what is printed
QUIET = 6.0  # seconds without a sign of life, which workers give every two, after which there are none

_COLOURS = {
    "task-succeeded": "green", "task-failed": "red", "task-retried": "magenta", "task-revoked": "yellow",
    "task-rejected": "yellow", PROGRESS: "cyan", "worker-offline": "red", "worker-online": "green",
}  # fmt: skip
_DETAILS = ("runtime", "exception", "eta", "retries", "args", "kwargs", "result", "signum", "expired", "terminated")


@dataclass(frozen=True)
class Known:
    """What events leave out of a task: its `name`, and the job that it is a step of."""

    id: str
    root_id: str
    name: str


@dataclass(frozen=True)
class Filters:
    """Which events are asked for; None lets all through. Those of workers alone have neither a task nor a job."""

    task: str | None = None
    job: str | None = None
    worker: str | None = None

    def let_through(self, event: Event) -> bool:
        """Whether `event`, with what Directory.complete() adds, is asked for."""
        return (
            (self.task is None or event.get("name") == self.task)
            and (self.job is None or self.job in (event.get("root_id"), event.get("uuid")))
            and (self.worker is None or event.get("hostname") == self.worker)
        )


class Directory:
    """Knows tasks by what earlier events told, and by their rows. To be used in an app context."""

    def __init__(self) -> None:
        self._by_id: OrderedDict[str, Known] = OrderedDict()
        self._by_step: OrderedDict[tuple[str, int], Known] = OrderedDict()
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

    def _known(self, event: Event) -> Known | None:
        task_id = event.get("uuid")
        if task_id is None:
            step = (event["root_id"], event["position"])
            return self._by_step.get(step) or self._look_up(Task.root_id == step[0], Task.position == step[1])
        if event.get("name"):
            known = Known(task_id, event.get("root_id") or task_id, event["name"])
            _remember(self._by_id, task_id, known)
            return known
        return self._by_id.get(task_id) or self._look_up(Task.id == task_id)

    def _look_up(self, *conditions: sa.ColumnElement[bool]) -> Known | None:
        columns = (Task.id, Task.root_id, Task.name, Task.position, Task.worker)
        try:
            row = db.session.execute(sa.select(*columns).where(*conditions)).first()
        except DBAPIError:  # it is away: the event is told without
            db.session.rollback()
            return None
        finally:
            db.session.remove()
        if row is None:
            return None
        known = Known(row.id, row.root_id, row.name)
        _remember(self._by_id, row.id, known)
        _remember(self._by_step, (row.root_id, row.position), known)
        if row.worker:
            _remember(self._worker_of, row.id, row.worker)
        return known


class Tail:
    """The events of `app` as they come, until the block that iterates over them ends."""

    def __init__(self, app: Flask, filters: Filters) -> None:
        self._app = app
        self._filters = filters
        self._heard: SimpleQueue[Event | BaseException | str | None] = SimpleQueue()
        self._said: str | None = ""
        self._worker_heard = False

    def read(self) -> Iterator[Event | str]:
        """Events that are asked for, and sentences about Redis and the workers, which are for people.

        Ends once nobody reads stdout any more.
        """
        directory = Directory()
        filters = self._filters
        if filters.job is not None:
            filters = Filters(filters.task, directory.root_of(filters.job), filters.worker)
        events = Events(self._app, self._heard.put, self._heard.put)
        with crashes_of_threads(self._heard.put):
            events.start()
            try:
                yield from self._all(directory, filters)
            finally:
                events.stop()

    def _all(self, directory: Directory, filters: Filters) -> Iterator[Event | str]:
        silent_for = 0.0
        while not reader_gone():
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


def as_line(event: Event) -> str:
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
    return display.one_line("  ".join(parts))


def colour_of(event: Event) -> str | None:
    """The colour of its line; None for those that come all the time."""
    return _COLOURS.get(event["type"])


def reader_gone() -> bool:
    """Whether stdout is a pipe that nobody reads from any more."""
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
