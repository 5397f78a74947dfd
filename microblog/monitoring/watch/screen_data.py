"""Data of the screen: threads update it, and the screen takes snapshots of it."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from threading import Lock

from celery.events.state import State, Task, Worker

from microblog.clock import utcnow
from microblog.monitoring.events import CHANGE, PROGRESS, Event
from microblog.monitoring.queues import QueueStats
from microblog.monitoring.rules import Problem
from microblog.monitoring.status import SystemStatus
from microblog.monitoring.watch.reader import UNFINISHED, JobQuery, JobQueryResult
from microblog.monitoring.watch.snapshot import Change, JobLine, Service, Snapshot, WorkerLine
from microblog.monitoring.workers import WorkerReplies, WorkerSummary
from microblog.taskqueue import states

MINUTE, SLICE = 60, 5  # seconds for which ended tasks are counted, and of each slice of that time
ENDED = {"task-succeeded": states.SUCCESS, "task-failed": states.FAILURE}
SHOW_AFTER = 1.0  # seconds after which a running task without a row is shown; most end earlier
MAX_TASKS, MAX_CHANGES = 2000, 2000  # maximum numbers that are stored


class ScreenData:
    """The data of the screen. `on_update` is called after each update, `on_task_change` when a task has changed."""

    def __init__(self, on_update: Callable[[], None], on_task_change: Callable[[], None]) -> None:
        self._on_update = on_update
        self._on_task_change = on_task_change
        self._lock = Lock()
        self._state = State(max_tasks_in_memory=MAX_TASKS)
        self._redis, self._database = Service("Redis"), Service("Database")
        self._listening_since: datetime | None = None
        self._result: JobQueryResult | None = None
        self._queues: Sequence[QueueStats] | None = None
        self._replies: WorkerReplies | None = None
        self._problems: Sequence[Problem] | None = None
        self._changes: OrderedDict[str, Change] = OrderedDict()
        self._ended: Counter[tuple[int, str]] = Counter()

    def handle_event(self, event: Event) -> None:
        """Update the data with an event of Celery or of the engine."""
        kind = event["type"]
        with self._lock:
            if kind in (PROGRESS, CHANGE):
                self._note_change(event)
            else:
                self._state.event(event)
            if kind in ENDED:
                self._count(ENDED[kind])
        if kind != PROGRESS and kind.startswith("task-"):
            self._on_task_change()
        self._on_update()

    def set_redis_error(self, error: str | None) -> None:
        """Store whether Redis is available: `error` is None if it is."""
        with self._lock:
            reconnected = error is None and (not self._redis.known or self._redis.unavailable)
            self._redis = _with_error(self._redis, error)
            if reconnected:
                self._listening_since = utcnow()
        self._on_update()

    def set_database_error(self, error: str | None) -> None:
        """Store whether the database is available: `error` is None if it is."""
        with self._lock:
            self._database = _with_error(self._database, error)
        self._on_update()

    def store_result(self, result: JobQueryResult) -> None:
        """Store the result of a query of the Task table."""
        with self._lock:
            self._result = result
        self._on_update()

    def store_queues(self, queues: Sequence[QueueStats] | None) -> None:
        """Store the statistics of the queues, or None if they are unavailable."""
        with self._lock:
            self._queues = queues
        self._on_update()

    def store_status(self, status: SystemStatus) -> None:
        """Store the problems that the status has, and the replies of the workers."""
        with self._lock:
            self._replies = status.workers or self._replies
            self._problems = status.problems
        self._on_update()

    def running_tasks(self) -> frozenset[str]:
        """Return the ids of tasks that have been running for at least SHOW_AFTER, according to Celery's events."""
        with self._lock:
            return frozenset(task.uuid for task in self._running())

    def snapshot(self, query: JobQuery) -> Snapshot:
        """Return the current data for `query`."""
        now = utcnow()
        with self._lock:
            slices = self._slices()
            since = self._listening_since
            result = self._result
            jobs = self._jobs(result, query) if result and result.query.view == query.view else None
            if jobs is None and self._database.unavailable:
                jobs = self._without_row(frozenset(), frozenset())
            detail = result.detail if result else None
            return Snapshot(
                now,
                self._redis,
                self._database,
                workers=self._workers(),
                queues=self._queues if not self._redis.unavailable else None,
                jobs=jobs,
                counts=result.counts if result else None,
                problems=self._problems,
                throughput=[sum(each.values()) for each in slices],
                succeeded=sum(each[states.SUCCESS] for each in slices),
                failed=sum(each[states.FAILURE] for each in slices),
                listening_for=now - since if since and not self._redis.unavailable else timedelta(0),
                detail=detail if detail and detail["id"] == query.opened else None,
            )

    def _note_change(self, event: Event) -> None:
        progress = None
        if event["type"] == PROGRESS:
            progress = {name: event[name] for name in ("current", "total", "percent", "message")}
        change = Change(event["position"], event["state"], datetime.fromtimestamp(event["timestamp"], UTC), progress)
        self._changes[event["root_id"]] = change
        self._changes.move_to_end(event["root_id"])
        if len(self._changes) > MAX_CHANGES:
            self._changes.popitem(last=False)

    def _count(self, state: str) -> None:
        current = int(time.monotonic()) // SLICE
        self._ended[current, state] += 1
        for expired in [key for key in self._ended if key[0] <= current - MINUTE // SLICE]:
            del self._ended[expired]

    def _slices(self) -> list[Counter[str]]:
        current = int(time.monotonic()) // SLICE
        numbers = range(current - MINUTE // SLICE + 1, current + 1)
        return [Counter({state: self._ended[number, state] for state in ENDED.values()}) for number in numbers]

    def _workers(self) -> list[WorkerLine]:
        """Return the workers known from Celery's events, and those known only from the latest query."""
        workers = {worker.hostname: worker for worker in list(self._state.workers.values()) if worker.heartbeats}
        lines = [self._worker(worker) for worker in workers.values() if worker.alive or self._expected(worker.hostname)]
        if self._replies is not None:
            queried = {name: _line_of_reply(self._replies.summary(name)) for name in self._replies.up}
            queried |= {name: WorkerLine(name, False, self._replies.last_seen[name]) for name in self._replies.silent}
            lines += [line for name, line in queried.items() if name not in workers]
        return sorted(lines, key=lambda line: (line.alive, line.name))

    def _expected(self, name: str) -> bool:
        """Return whether a silent worker should be up: it has not unregistered, nor has its registration expired."""
        return self._replies is None or name in self._replies.last_seen

    def _worker(self, worker: Worker) -> WorkerLine:
        return WorkerLine(
            worker.hostname,
            alive=bool(worker.alive),
            last_seen=datetime.fromtimestamp(worker.heartbeats[-1], UTC),
            active=worker.active or 0,
            processed=worker.processed or 0,
            load=worker.loadavg[0] if worker.loadavg else None,
            concurrency=self._replies.summary(worker.hostname).concurrency if self._replies else None,
        )

    def _jobs(self, result: JobQueryResult, query: JobQuery) -> list[JobLine]:
        lines = [self._up_to_date(line) for line in result.jobs]
        if query.view != UNFINISHED:
            return lines
        # A task whose row has not been read may have failed to claim it; Celery sends no event when such a task ends.
        unchecked = frozenset() if self._database.unavailable else self._unchecked(result)
        shown = frozenset(line.id for line in lines) | result.with_row | unchecked
        return lines + self._without_row(shown, result.with_row)

    def _unchecked(self, result: JobQueryResult) -> frozenset[str]:
        return frozenset(task.uuid for task in self._running()) - result.query.maybe_without_row

    def _up_to_date(self, line: JobLine) -> JobLine:
        change = self._changes.get(line.id)
        return line.with_change(change) if change else line

    def _without_row(self, shown: frozenset[str], with_row: frozenset[str]) -> list[JobLine]:
        """Return running tasks of which no row was read: those without a row, or all if the database is unavailable."""
        unread = [task for task in self._running() if (task.root_id or task.uuid) not in shown]
        return [self._up_to_date(_line_of_task(task)) for task in unread if task.uuid not in with_row]

    def _running(self) -> Iterable[Task]:
        cutoff = time.time() - SHOW_AFTER
        for task in list(self._state.tasks.values()):
            if task.state == states.STARTED and task.started < cutoff and task.worker and task.worker.alive:
                yield task


def _line_of_reply(worker: WorkerSummary) -> WorkerLine:
    """Return the line of a worker that has replied, but has not sent an event yet."""
    return WorkerLine(
        worker.name, True, None, worker.running or 0, worker.processed or 0, concurrency=worker.concurrency
    )


def _line_of_task(task: Task) -> JobLine:
    name = task.name or "?"
    return JobLine(
        task.root_id or task.uuid,
        name,
        state=states.STARTED,
        step_name=name,
        worker=task.worker.hostname,
        created_at=datetime.fromtimestamp(task.received, UTC) if task.received else None,
        started_at=datetime.fromtimestamp(task.started, UTC),
        has_row=False,
    )


def _with_error(part: Service, error: str | None) -> Service:
    if error is None:
        return replace(part, known=True, error=None, since=None)
    return replace(part, known=True, error=error, since=part.since or utcnow())
