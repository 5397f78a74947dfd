"""System status: workers, queues, jobs and schedule in one check, for operators, /readyz and /metrics.

The services are probed concurrently, each in its own thread, since a driver may block longer than the caller may wait.
"""

from __future__ import annotations

import logging
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import aliased

from microblog.clock import utcnow
from microblog.database import AutocommitExecutor, DatabaseUnavailable, database_time
from microblog.extensions import REDIS_UNAVAILABLE, db, redis_client, refuses
from microblog.monitoring.filters import is_current_step, job_state
from microblog.monitoring.job_queries import (
    TaskOutcomes,
    WaitingJob,
    WaitingTasks,
    active_queues,
    oldest_waiting_job,
    recent_outcomes,
    waiting_tasks,
)
from microblog.monitoring.probes import ConcurrentProbes, Probes
from microblog.monitoring.queues import QueueStats, measure_queues
from microblog.monitoring.rules import DATABASE, JOBS, PATIENCE, REDIS, Problem, Verdict, find_problems, verdict_of
from microblog.monitoring.schedule import ScheduleEntry, is_beat_running, schedule_entries
from microblog.monitoring.storage_reports import programs_without_storage
from microblog.monitoring.worker_rpc import broadcast_and_collect
from microblog.monitoring.workers import REGISTERED, WorkerReplies, changed_rate_limits, query_workers, unknown_tasks
from microblog.taskqueue import states
from microblog.taskqueue.consumer import count_dead_letters
from microblog.taskqueue.interface import celery_app
from microblog.taskqueue.models import Task

logger = logging.getLogger(__name__)

HOUR = timedelta(hours=1)
RECENTLY = timedelta(minutes=15)
EXTRA_TIMEOUT = 2.0  # seconds after the workers' timeout, until a service that has not responded counts as unavailable

#: Age groups of unfinished jobs: their upper limits in seconds. Older jobs are in the group OLDER.
AGES = {"1m": 60, "10m": 600, "1h": 3600, "1d": 86400}
OLDER = "older"


@dataclass(frozen=True)
class JobSummary:
    """Numbers of unfinished jobs by state and age, and of the jobs that ended and failed within the last hour.

    `recent` counts the tasks that ended within the last hour, by name. `active_queues` are those in which a task has
    started, made progress or ended within rules.PATIENCE.
    """

    unfinished: dict[str, dict[str, int]]
    ended: int
    failed: int
    oldest_waiting: WaitingJob | None
    waiting: list[WaitingTasks]
    active_queues: list[str]
    recent: dict[str, TaskOutcomes]


@dataclass(frozen=True)
class SystemStatus:
    """System status at the time `at`, by the clock of the database. A part whose service is unavailable is None.

    `unavailable` maps such a service to the reason. `dead_letters` is the number of malformed messages that were set
    aside. `without_storage` maps programs that do not use the same storages as the others to a reason. By worker,
    `unknown_tasks` are those of this release that it lacks, and `rate_limits` those that operators have set. `clocks`
    are the seconds by which the clocks of workers, Redis and this machine are ahead of the database's.
    """

    at: datetime
    unavailable: dict[str, str]
    workers: WorkerReplies | None = None
    queues: list[QueueStats] | None = None
    schedule: list[ScheduleEntry] | None = None
    beat: bool | None = None
    dead_letters: int | None = None
    without_storage: dict[str, str] | None = None
    jobs: JobSummary | None = None
    unknown_tasks: dict[str, list[str]] = field(default_factory=dict)
    rate_limits: dict[str, dict[str, str]] = field(default_factory=dict)
    clocks: dict[str, float] = field(default_factory=dict)

    @cached_property
    def problems(self) -> list[Problem]:
        """The problems that the rules find, those that stop all jobs first."""
        return find_problems(self)

    @property
    def verdict(self) -> Verdict:
        """The overall status."""
        return verdict_of(self.problems)

    @property
    def longest_queue(self) -> int:
        """The number of messages in the longest queue, at least 1; the page draws all queues in proportion to it."""
        return max((queue.length for queue in self.queues or ()), default=0) or 1

    def count_unfinished(self, *in_states: str) -> int:
        """Return the number of unfinished jobs in one of these states; 0 if the database is unavailable."""
        return sum(sum(self.jobs.unfinished[state].values()) for state in in_states) if self.jobs else 0


def check_status(timeout: float, probes: ConcurrentProbes | None = None) -> SystemStatus:
    """Check everything concurrently. Workers have `timeout` seconds to reply; the check takes at most 2 s longer.

    Callers with the same `probes` share a check. The caller's session is rolled back: the check needs a connection, of
    which there may be only one.
    """
    db.session.rollback()
    checks = {REDIS: lambda: _query_redis(timeout), DATABASE: _use_database, JOBS: _summarize_jobs}
    return _run(checks, probes or ConcurrentProbes(celery_app().flask_app), timeout)


def check_services(timeout: float, probes: ConcurrentProbes) -> SystemStatus:
    """As check_status(), but find out only whether the database, Redis and any worker respond."""
    return _run({REDIS: lambda: _ping_workers(timeout), DATABASE: _use_database}, probes, timeout)


def _run(probes: Probes, concurrent_probes: ConcurrentProbes, timeout: float) -> SystemStatus:
    futures = concurrent_probes.run(probes, timeout + EXTRA_TIMEOUT)
    unavailable = {service: reason for service, future in futures.items() if (reason := _reason(service, future))}
    parts: dict[str, Any] = {"at": utcnow()}
    for service in futures.keys() - unavailable.keys():
        parts |= futures[service].result()
    clocks = parts.pop("clocks", {}) | {"this machine": 0.0}
    ahead = parts.pop("database_ahead", 0.0)
    return SystemStatus(
        **parts, unavailable=unavailable, clocks={name: seconds - ahead for name, seconds in clocks.items()}
    )


SERVICE_NAMES = {REDIS: "Redis", DATABASE: "The database", JOBS: "The database"}


def _reason(service: str, future: Future[Any]) -> str:
    """Return why `service` is unavailable; an empty string if its probe has succeeded."""
    if not future.done():
        return f"{SERVICE_NAMES[service]} does not respond in time."
    error = future.exception()
    if error is None:
        return ""
    if isinstance(error, REDIS_UNAVAILABLE):
        return f"Redis {'refuses commands' if refuses(error) else 'is unavailable'}: {error}"
    if isinstance(error, DatabaseUnavailable):
        return f"The database is unavailable: {error.orig}"
    logger.error("the check of %s failed; the status omits its data", service, exc_info=error)
    return f"The check of {service} failed: {error!r}"


def _query_redis(timeout: float) -> dict[str, Any]:
    before, at_redis = time.time(), redis_client.connection.now()
    workers = query_workers(timeout, {"utc_seconds": {}, **REGISTERED})
    after = time.time()
    clocks = {name: at for name, reply in workers.up.items() if isinstance(at := reply.get("utc_seconds"), float)}
    return {
        "workers": workers,
        "queues": measure_queues(workers),
        "schedule": schedule_entries(),
        "beat": is_beat_running(),
        "dead_letters": count_dead_letters(),
        "without_storage": programs_without_storage(celery_app().flask_app),
        "unknown_tasks": unknown_tasks(workers),
        "rate_limits": changed_rate_limits(workers),
        # A clock that was read between the two times may be right.
        "clocks": {name: at - min(max(at, before), after) for name, at in {"Redis": at_redis, **clocks}.items()},
    }


def _ping_workers(timeout: float) -> dict[str, Any]:
    replies = broadcast_and_collect({"ping": {}}, timeout, expected=None)
    return {"workers": WorkerReplies(up=replies, silent=[], last_seen={})}


def _use_database() -> dict[str, Any]:
    db.session.scalar(sa.select(Task.id).limit(1))  # a database without the tables is not ready
    at = database_time(db.session)
    ahead = (at - utcnow()).total_seconds()
    db.session.rollback()  # there may be only one connection
    AutocommitExecutor(db.engine).check_writable()
    return {"at": at, "database_ahead": ahead}


def _summarize_jobs() -> dict[str, JobSummary]:
    at = database_time(db.session)
    ended = _ended_since(at - HOUR)
    summary = JobSummary(
        unfinished=_unfinished(at),
        ended=sum(ended.values()),
        failed=ended.get(states.FAILURE, 0),
        oldest_waiting=oldest_waiting_job(at),
        waiting=waiting_tasks(db.session()),
        active_queues=active_queues(at - PATIENCE),
        recent=recent_outcomes(at - HOUR, at - RECENTLY),
    )
    return {"jobs": summary}


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
