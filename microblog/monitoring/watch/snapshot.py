"""Immutable data of the screen at one moment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from microblog.jobs.models import Job
from microblog.monitoring.queues import QueueStats
from microblog.taskqueue import states


@dataclass(frozen=True)
class Part:
    """Redis, or the database: `error` says why it is away, `since` when it went; both None while it answers."""

    name: str
    known: bool = False
    error: str | None = None
    since: datetime | None = None

    @property
    def away(self) -> bool:
        """Return whether it is known not to answer."""
        return self.known and self.error is not None


@dataclass(frozen=True)
class WorkerLine:
    """A worker, by its own signs of life; `heard_at` is the latest. `concurrency` is None where it has not said."""

    name: str
    alive: bool
    heard_at: datetime | None
    active: int = 0
    processed: int = 0
    load: float | None = None
    concurrency: int | None = None


@dataclass(frozen=True)
class JobLine:
    """A job: the facts of its current step, numbered from 1, and those of the whole."""

    id: str
    name: str
    user: str = ""
    description: str = ""
    state: str = states.PENDING
    step: int = 1
    steps: int = 1
    step_name: str = ""
    percent: int = 0
    current: int = 0
    total: int | None = None
    message: str = ""
    error: str = ""
    queue: str = ""
    worker: str = ""
    attempts: int = 0
    created_at: datetime | None = None
    started_at: datetime | None = None  # of the current step
    finished_at: datetime | None = None
    changed_at: datetime | None = None
    eta: datetime | None = None  # when the next attempt is due
    asked_to_stop: bool = False
    has_row: bool = True

    @classmethod
    def of(cls, job: Job, user: str) -> JobLine:
        """The line of a job in the Task table."""
        step = job.current
        return cls(
            id=job.id,
            name=job.root.name,
            user=user,
            description=job.root.description,
            state=job.state,
            step=step.position + 1,
            steps=len(job.steps),
            step_name=step.name,
            percent=step.progress,
            current=step.current,
            total=step.total,
            message=step.message,
            error=step.error or "",
            queue=step.queue,
            worker=step.worker or "",
            attempts=max(each.attempts for each in job.steps),
            created_at=job.root.created_at,
            started_at=step.started_at,
            finished_at=job.finished_at,
            changed_at=job.changed_at,
            eta=step.eta,
            asked_to_stop=job.cancel_requested,
        )

    @property
    def running(self) -> bool:
        """Return whether a worker has it, or has had a step of it."""
        return self.state in states.RUNNING

    @property
    def unfinished(self) -> bool:
        """Return whether it has yet to end."""
        return self.state in states.UNFINISHED

    def remaining(self, now: datetime) -> timedelta | None:
        """The time that the current step needs at its pace so far; None if unknown."""
        if not (self.running and self.started_at and self.total and self.current):
            return None
        return max(timedelta(0), (now - self.started_at) * (self.total - self.current) / self.current)

    def with_change(self, change: Change) -> JobLine:
        """As it is after `change`, which may be old news."""
        news = self.unfinished and (self.changed_at is None or change.at > self.changed_at)
        if not news or change.position < self.step - 1:
            return self
        line = replace(self, state=change.state, step=change.position + 1, changed_at=change.at)
        if change.progress is not None:
            return replace(line, **change.progress)
        if change.state == states.SUCCESS and line.step < line.steps:
            fresh: dict[str, Any] = {"percent": 0, "current": 0, "total": None, "message": "", "started_at": None}
            return replace(line, state=states.PROGRESS, step=line.step + 1, **fresh)
        if change.state in states.FINISHED:
            return replace(line, finished_at=change.at, percent=100 if change.state == states.SUCCESS else line.percent)
        return line


@dataclass(frozen=True)
class Change:
    """A change of one step; `progress` has the fields of JobLine that describe it."""

    position: int
    state: str
    at: datetime
    progress: dict[str, Any] | None = None


@dataclass(frozen=True)
class Counts:
    """All unfinished jobs, and whose has waited longest without having begun."""

    running: int = 0
    waiting: int = 0
    oldest_user: str = ""
    oldest_since: datetime | None = None


@dataclass(frozen=True)
class Snapshot:
    """The data at `at`. `pace` counts the tasks that ended, by slices of the last minute, the latest last."""

    at: datetime
    redis: Part
    database: Part
    workers: Sequence[WorkerLine] = ()
    queues: Sequence[QueueStats] | None = None  # None: it is not known
    jobs: Sequence[JobLine] | None = None
    counts: Counts | None = None
    pace: Sequence[int] = ()
    succeeded: int = 0  # in the last minute
    failed: int = 0
    listening_for: timedelta = timedelta(0)
    detail: dict[str, Any] | None = None  # the job that is open, as `show --json` has it
