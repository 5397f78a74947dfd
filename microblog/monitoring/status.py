"""System status: workers, queues, jobs and schedule in one check, for ``flask tasks status`` and the admin page.

The parts are probed concurrently, each in its own thread, since a driver may block longer than the caller may wait.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum
from functools import cached_property
from threading import Lock, Thread
from typing import Any

import sqlalchemy as sa
from flask import Flask
from sqlalchemy.orm import aliased

from microblog.clock import utcnow
from microblog.database import DatabaseUnavailable, check_writable, database_time
from microblog.extensions import REDIS_UNAVAILABLE, db
from microblog.monitoring.filters import is_current_step, job_state
from microblog.monitoring.job_queries import WaitingJob, oldest_waiting_job
from microblog.monitoring.queues import QueueStats, ScheduleEntry, measure_queues, schedule_entries
from microblog.monitoring.workers import WorkerReplies, query_workers
from microblog.taskqueue import states
from microblog.taskqueue.consumer import count_dead_letters
from microblog.taskqueue.interface import celery_app
from microblog.taskqueue.models import Task

logger = logging.getLogger(__name__)

HOUR = timedelta(hours=1)
WAITING_TOO_LONG = timedelta(minutes=5)  # for a job that no worker runs
OVERDUE = timedelta(seconds=15)  # or the interval of the entry, if that is longer
FAILURE_RATE_LIMIT = 0.1  # fraction of the jobs that ended within the last hour
MIN_FAILURES = 5  # failed jobs; fewer are not a problem, whatever their fraction
EXTRA_TIMEOUT = 0.6  # seconds after the workers' timeout, until a part that has not responded counts as unavailable

#: The parts of the status, each with the service that it comes from.
SERVICES = {
    "workers": "Redis",
    "queues": "Redis",
    "schedule": "Redis",
    "dead_letters": "Redis",
    "jobs": "The database",
    "writable": "The database",
}
#: Age groups of unfinished jobs: their upper limits in seconds. Older jobs are in the group OLDER.
AGES = {"1m": 60, "10m": 600, "1h": 3600, "1d": 86400}
OLDER = "older"

Probes = Mapping[str, Callable[[], Any]]


class ConcurrentProbes:
    """Probes that run concurrently in an app context, with a limit on the time that callers wait.

    A caller of the same object that comes while a probe is still running waits for the same result: each probe has at
    most one thread, whatever the number of callers and however long it hangs. A command makes an object of its own.
    """

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._lock = Lock()
        self._futures: dict[str, Future[Any]] = {}

    def run(self, probes: Probes, timeout: float) -> dict[str, Future[Any]]:
        """Return the futures by name; that of a probe that takes more than `timeout` seconds is not done."""
        with self._lock:
            futures = {name: self._start(name, probe) for name, probe in probes.items()}
        wait(futures.values(), timeout)
        return futures

    def _start(self, name: str, probe: Callable[[], Any]) -> Future[Any]:
        future = self._futures.get(name)
        if future is None or future.done():
            future = self._futures[name] = Future()
            Thread(target=self._run_one, args=(probe, future), name=f"probe-{name}", daemon=True).start()
        return future

    def _run_one(self, probe: Callable[[], Any], future: Future[Any]) -> None:
        try:
            with self._app.app_context():
                value = probe()
        except Exception as error:
            future.set_exception(error)
        else:
            future.set_result(value)


class Verdict(IntEnum):
    """Overall status; its number is the exit code of ``flask tasks status``."""

    HEALTHY = 0
    DEGRADED = 1
    DOWN = 2


@dataclass(frozen=True)
class JobSummary:
    """Numbers of unfinished jobs by state and age, and of the jobs that ended and failed within the last hour."""

    unfinished: dict[str, dict[str, int]]
    ended: int
    failed: int
    oldest_waiting: WaitingJob | None


@dataclass(frozen=True)
class SystemStatus:
    """System status at the time `at`. An unavailable part is None; `unavailable` contains its name and a message.

    `dead_letters` is the number of malformed messages that were set aside. `writable` is None if the database refuses
    to write, or has not done so in time.
    """

    at: datetime
    workers: WorkerReplies | None
    queues: list[QueueStats] | None
    schedule: list[ScheduleEntry] | None
    dead_letters: int | None
    jobs: JobSummary | None
    unavailable: dict[str, str]
    writable: bool | None = True

    @cached_property
    def problems(self) -> list[str]:
        """The problems, those that stop all jobs first."""
        return [*_severe_problems(self), *_minor_problems(self)]

    @property
    def verdict(self) -> Verdict:
        """The overall status."""
        if _severe_problems(self):
            return Verdict.DOWN
        return Verdict.DEGRADED if self.problems else Verdict.HEALTHY

    @property
    def longest_queue(self) -> int:
        """The number of messages in the longest queue, at least 1; the page draws all queues in proportion to it."""
        return max((queue.length for queue in self.queues or ()), default=0) or 1

    def count_unfinished(self, *in_states: str) -> int:
        """Return the number of unfinished jobs in one of these states; 0 if the database is unavailable."""
        return sum(sum(self.jobs.unfinished[state].values()) for state in in_states) if self.jobs else 0


def check_status(timeout: float) -> SystemStatus:
    """Check all parts concurrently. Workers have `timeout` seconds to reply; the check takes at most 0.6 s longer.

    The caller's session is rolled back: the check needs a connection, of which there may be only one.
    """
    db.session.rollback()
    found: dict[str, Any] = {}

    def check_redis() -> None:
        found["workers"] = query_workers(timeout)
        found["queues"] = measure_queues(found["workers"])
        found["schedule"] = schedule_entries()
        found["dead_letters"] = count_dead_letters()

    def check_database() -> None:
        found["jobs"] = _summarize_jobs()
        db.session.rollback()
        check_writable(db.engine)
        found["writable"] = True

    probes = {"Redis": check_redis, "The database": check_database}
    futures = ConcurrentProbes(celery_app().flask_app).run(probes, timeout + EXTRA_TIMEOUT)
    reasons = {service: _reason(service, future) for service, future in futures.items()}
    parts = {part: found.get(part) for part in SERVICES}  # a probe that has not ended may still add to `found`
    unavailable = {part: reasons[service] for part, service in SERVICES.items() if parts[part] is None}
    return SystemStatus(utcnow(), **parts, unavailable=unavailable)


def _reason(service: str, future: Future[None]) -> str:
    """Return a message about a probe that has failed or has not ended; an empty string if it has succeeded."""
    if not future.done():
        return f"{service} does not respond in time."
    error = future.exception()
    if error is None:
        return ""
    if isinstance(error, REDIS_UNAVAILABLE):
        return f"Redis is unavailable: {error}"
    if isinstance(error, DatabaseUnavailable):
        return f"The database is unavailable: {error.orig}"
    logger.error("%s: the check failed; the status omits its data", service, exc_info=error)
    return f"The check failed: {error!r}"


def _severe_problems(status: SystemStatus) -> list[str]:
    """Return the problems that stop all jobs."""
    problems = list(dict.fromkeys(status.unavailable.values()))
    if status.workers is not None and not status.workers.up:
        problems.append("No worker replied.")
    return problems


def _minor_problems(status: SystemStatus) -> list[str]:
    """Return the problems that delay some jobs."""
    problems = [f"{name} does not respond." for name in status.workers.silent] if status.workers else []
    problems += [
        f"{worker.name} has no processes: flask tasks worker {worker.name} grow."
        for worker in (status.workers.summaries() if status.workers else [])
        if worker.concurrency == 0
    ]
    for queue in status.queues or []:
        if queue.length and queue.paused:
            problems.append(f"The queue {queue.name} is paused; waiting messages: {queue.length}.")
        elif queue.length and queue.consumers == 0:
            problems.append(f"No worker consumes the queue {queue.name}; waiting messages: {queue.length}.")
    problems += [
        f"{entry.name} is overdue: is beat running?" for entry in status.schedule or [] if _is_overdue(entry, status)
    ]
    if status.dead_letters:
        problems.append(f"Malformed messages: {status.dead_letters}; flask tasks dead-letters lists them.")
    return problems + _job_problems(status)


def _is_overdue(entry: ScheduleEntry, status: SystemStatus) -> bool:
    grace = max(OVERDUE, timedelta(seconds=entry.every or 0))
    return entry.next_run_at is None or status.at - entry.next_run_at > grace


def _job_problems(status: SystemStatus) -> list[str]:
    problems = []
    if status.jobs is None:
        return []
    waiting = status.jobs.oldest_waiting
    if waiting is not None and status.at - waiting.since > WAITING_TOO_LONG:
        problems.append(f"{waiting.user} has been waiting too long for {waiting.name}.")
    if status.jobs.failed >= max(MIN_FAILURES, FAILURE_RATE_LIMIT * status.jobs.ended):
        problems.append(f"{status.jobs.failed} of the {status.jobs.ended} jobs that ended within the last hour failed.")
    return problems


def _summarize_jobs() -> JobSummary:
    now = database_time(db.session)
    ended = _ended_since(now - HOUR)
    return JobSummary(
        unfinished=_unfinished(now),
        ended=sum(ended.values()),
        failed=ended.get(states.FAILURE, 0),
        oldest_waiting=oldest_waiting_job(now),
    )


def _unfinished(now: datetime) -> dict[str, dict[str, int]]:
    step = aliased(Task)
    ages = [(step.created_at > now - timedelta(seconds=below), age) for age, below in AGES.items()]
    query = sa.select(job_state(step).label("state"), sa.case(*ages, else_=OLDER).label("age")).where(
        step.unfinished, is_current_step(step)
    )
    jobs = query.subquery()
    counted = sa.select(jobs.c.state, jobs.c.age, sa.func.count()).group_by(jobs.c.state, jobs.c.age)
    counts = {state: dict.fromkeys((*AGES, OLDER), 0) for state in states.UNFINISHED}
    for state, age, count in db.session.execute(counted):
        counts[state][age] = count
    return counts


def _ended_since(since: datetime) -> dict[str, int]:
    step = aliased(Task)
    query = sa.select(step.state, sa.func.count()).where(step.finished_at >= since, is_current_step(step))
    return {row[0]: row[1] for row in db.session.execute(query.group_by(step.state))}
