"""Immutable data of the screen at one point in time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from microblog.jobs.models import Job
from microblog.monitoring.job_queries import WaitingJob
from microblog.monitoring.queues import QueueStats
from microblog.monitoring.rules import Problem
from microblog.taskqueue import states


@dataclass(frozen=True)
class Service:
    """Redis or the database. `error` is the reason for an outage, `since` its start; both are None if there is none."""

    name: str
    known: bool = False
    error: str | None = None
    since: datetime | None = None

    @property
    def unavailable(self) -> bool:
        """Return whether it is known to be unavailable."""
        return self.known and self.error is not None


@dataclass(frozen=True)
class WorkerLine:
    """A worker. `last_seen` is the time of its latest heartbeat or registration; `concurrency` is None if unknown."""

    name: str
    alive: bool
    last_seen: datetime | None
    active: int = 0
    processed: int = 0
    load: float | None = None
    concurrency: int | None = None


@dataclass(frozen=True)
class JobLine:
    """A job: the data of its current step, numbered from 1, and of the whole job."""

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
    created_at: datetime | None = None
    started_at: datetime | None = None  # of the current step
    finished_at: datetime | None = None
    changed_at: datetime | None = None
    eta: datetime | None = None  # when the next attempt is due
    cancel_requested: bool = False
    has_row: bool = True

    @classmethod
    def of(cls, job: Job, user: str) -> JobLine:
        """Return the line of a job in the Task table."""
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
            created_at=job.root.created_at,
            started_at=step.started_at,
            finished_at=job.finished_at,
            changed_at=job.changed_at,
            eta=step.eta,
            cancel_requested=job.cancel_requested,
        )

    @property
    def running(self) -> bool:
        """Return whether a worker runs the job, or has finished a step of it."""
        return self.state in states.RUNNING

    @property
    def unfinished(self) -> bool:
        """Return whether the job has not ended."""
        return self.state in states.UNFINISHED

    def remaining(self, now: datetime) -> timedelta | None:
        """Return the time until the current step ends, at its average speed so far; None if unknown."""
        if not (self.running and self.started_at and self.total and self.current):
            return None
        return max(timedelta(0), (now - self.started_at) * (self.total - self.current) / self.current)

    def with_change(self, change: Change) -> JobLine:
        """Return the line after `change`, or the same line if `change` is older."""
        newer = self.unfinished and (self.changed_at is None or change.at > self.changed_at)
        if not newer or change.position < self.step - 1:
            return self
        line = replace(self, state=change.state, step=change.position + 1, changed_at=change.at)
        if change.progress is not None:
            return replace(line, **change.progress)
        if change.state == states.SUCCESS and line.step < line.steps:
            reset: dict[str, Any] = {"percent": 0, "current": 0, "total": None, "message": "", "started_at": None}
            return replace(line, state=states.PROGRESS, step=line.step + 1, **reset)
        if change.state in states.FINISHED:
            return replace(line, finished_at=change.at, percent=100 if change.state == states.SUCCESS else line.percent)
        return line


@dataclass(frozen=True)
class Change:
    """A change of one step; `progress` contains fields of JobLine."""

    position: int
    state: str
    at: datetime
    progress: dict[str, Any] | None = None


@dataclass(frozen=True)
class Counts:
    """The numbers of jobs that workers run and of the other unfinished jobs, and the oldest of these."""

    running: int = 0
    waiting: int = 0
    oldest_waiting: WaitingJob | None = None


@dataclass(frozen=True)
class Snapshot:
    """The data at `at`. `throughput` counts the tasks that ended in each slice of the last minute, oldest first."""

    at: datetime
    redis: Service
    database: Service
    workers: Sequence[WorkerLine] = ()
    queues: Sequence[QueueStats] | None = None  # None if unknown
    jobs: Sequence[JobLine] | None = None
    counts: Counts | None = None
    problems: Sequence[Problem] | None = None  # None if unknown
    throughput: Sequence[int] = ()
    succeeded: int = 0  # in the last minute
    failed: int = 0
    listening_for: timedelta = timedelta(0)
    detail: dict[str, Any] | None = None  # the open job, as described by describe_jobs(), with its events in `timeline`
