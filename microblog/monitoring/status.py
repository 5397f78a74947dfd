"""System status: workers, queues, jobs and schedule in one check, for ``flask tasks status`` and the admin page.

The parts are probed concurrently, each in its own thread, since a driver may block longer than the caller may wait.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import IntEnum
from threading import Lock, Thread
from typing import Any

import sqlalchemy as sa
from flask import Flask
from sqlalchemy.orm import aliased

from microblog.accounts.models import User
from microblog.clock import utcnow
from microblog.database import DatabaseUnavailable
from microblog.extensions import REDIS_UNAVAILABLE, db
from microblog.monitoring.filters import job_state, stands_at
from microblog.monitoring.queues import QueueStats, ScheduleEntry, measure_queues, schedule_entries
from microblog.monitoring.workers import WorkerReplies, query_workers
from microblog.taskqueue import states
from microblog.taskqueue.models import Task

Questions = Mapping[str, Callable[[], Any]]


class ConcurrentProbes:
    """Asks questions within an app context, and waits for the answers no longer than it is told to.

    Whoever asks while a part is still being asked waits for the same answer: however many ask, however long a part
    hangs, there is never more than one thread for each.
    """

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._lock = Lock()
        self._asked: dict[str, Future[Any]] = {}

    def ask(self, questions: Questions, timeout: float) -> dict[str, Future[Any]]:
        """The answers, by the names of the parts; one that did not come within `timeout` seconds is not done."""
        until = time.monotonic() + timeout
        with self._lock:
            asked = {name: self._ask(name, question) for name, question in questions.items()}
        for answer in asked.values():
            _wait(answer, max(0.0, until - time.monotonic()))
        return asked

    def _ask(self, name: str, question: Callable[[], Any]) -> Future[Any]:
        answer = self._asked.get(name)
        if answer is None or answer.done():
            answer = self._asked[name] = Future()
            Thread(target=self._run, args=(question, answer), name=f"ask-{name}", daemon=True).start()
        return answer

    def _run(self, question: Callable[[], Any], answer: Future[Any]) -> None:
        try:
            with self._app.app_context():
                said = question()
        except Exception as error:
            answer.set_exception(error)
        else:
            answer.set_result(said)


def _wait(answer: Future[Any], timeout: float) -> None:
    try:
        answer.exception(timeout)
    except TimeoutError:
        return


logger = logging.getLogger(__name__)

HOUR = timedelta(hours=1)
WAITING_TOO_LONG = timedelta(minutes=5)  # for a user whose job nobody works on
OVERDUE = timedelta(seconds=15)  # or the pause of the entry, if that is longer
FAILING = 0.1  # of the jobs that ended within the hour
FAILING_AT_LEAST = 5  # jobs: of fewer no share is worth a call
PATIENCE = 0.6  # seconds, beyond what workers have, until a part that has not answered counts as away

#: How long ago an unfinished job was created: below each of these, or longer.
AGES = {"1m": 60, "10m": 600, "1h": 3600, "1d": 86400}
OLDER = "older"


class Verdict(IntEnum):
    """The verdict; its number is the exit code of ``flask tasks status``."""

    HEALTHY = 0
    DEGRADED = 1
    DOWN = 2


@dataclass(frozen=True)
class WaitingJobs:
    """The user who has waited longest for a job that no worker works on, since when, and the job."""

    user: str
    since: datetime
    job_id: str
    name: str
    state: str


@dataclass(frozen=True)
class JobSummary:
    """Unfinished jobs by state and age, and the number that ended within the last hour."""

    unfinished: dict[str, dict[str, int]]
    ended: int
    failed: int
    oldest_waiting: WaitingJobs | None


@dataclass(frozen=True)
class SystemStatus:
    """The status at `at`. A part that is unavailable is None, and `away` has its name and a sentence."""

    at: datetime
    workers: WorkerReplies | None
    queues: list[QueueStats] | None
    schedule: list[ScheduleEntry] | None
    jobs: JobSummary | None
    away: dict[str, str]
    problems: list[str] = field(init=False)
    verdict: Verdict = field(init=False)

    @property
    def longest_queue(self) -> int:
        """The number of messages in the longest queue, at least 1; the page draws all queues in proportion to it."""
        return max((queue.length for queue in self.queues or ()), default=0) or 1

    def count_unfinished(self, *in_states: str) -> int:
        """Return the number of unfinished jobs in one of these states; 0 if the database is unavailable."""
        return sum(sum(self.jobs.unfinished[state].values()) for state in in_states) if self.jobs else 0

    def __post_init__(self) -> None:
        grave, slight = list(_grave(self)), list(_slight(self))
        object.__setattr__(self, "problems", grave + slight)
        object.__setattr__(self, "verdict", Verdict.DOWN if grave else Verdict.DEGRADED if slight else Verdict.HEALTHY)


def check_status(app: Flask, timeout: float) -> SystemStatus:
    """Ask everything at once; workers have `timeout` seconds to answer, and nothing takes more than 0.6 s longer."""
    looking = _StatusCheck(app)
    looking.begin({"workers": lambda: query_workers(timeout), "queues": looking.queues, "schedule": schedule_entries})
    looking.begin({"jobs": _figures})
    found = looking.end(timeout + PATIENCE)
    return SystemStatus(
        at=utcnow(),
        workers=found.get("workers"),
        queues=found.get("queues"),
        schedule=found.get("schedule"),
        jobs=found.get("jobs"),
        away=looking.away,
    )


class _StatusCheck:
    """Asks in threads, since a driver may wait longer than we do; what a fault keeps from being asked is away, too."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._threads: list[Thread] = []
        self._asked: list[str] = []
        self._found: dict[str, Any] = {}
        self.away: dict[str, str] = {}

    def begin(self, questions: dict[str, Callable[[], Any]]) -> None:
        """Ask these, one after the other."""
        self._asked += questions
        self._threads.append(Thread(target=self._run, args=(questions,), daemon=True))
        self._threads[-1].start()

    def queues(self) -> list[QueueStats]:
        """Measure the queues, knowing what the workers said."""
        return measure_queues(self._found["workers"])

    def end(self, patience: float) -> dict[str, Any]:
        """Return what was found within `patience` seconds."""
        deadline = time.monotonic() + patience
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        found = dict(self._found)
        for name in self._asked:
            if name not in found:
                part = "The database" if name == "jobs" else "Redis"
                self.away.setdefault(name, f"{part} does not answer in time.")
        return found

    def _run(self, questions: dict[str, Callable[[], Any]]) -> None:
        left = list(questions)
        try:
            with self._app.app_context():
                while left:
                    self._found[left[0]] = questions[left[0]]()
                    left.pop(0)
        except Exception as error:
            self.away |= dict.fromkeys(left, _sentence(error))


def _sentence(error: Exception) -> str:
    if isinstance(error, REDIS_UNAVAILABLE):
        return f"Redis does not answer as it should: {error}"
    if isinstance(error, DatabaseUnavailable):
        return f"The database does not answer as it should: {error.orig}"
    logger.exception("could not look", exc_info=error)
    return f"It cannot be told: {error!r}"


def _grave(health: SystemStatus) -> list[str]:
    """Why nothing is done for anybody."""
    problems = list(dict.fromkeys(health.away.values()))
    if health.workers is not None and not health.workers.up:
        problems.append("No worker answers.")
    return problems


def _slight(health: SystemStatus) -> list[str]:
    """Why some have to wait."""
    problems = [f"{name} does not answer." for name in health.workers.silent] if health.workers else []
    problems += [
        f"{worker.name} has no processes: flask tasks worker {worker.name} grow."
        for worker in (health.workers.summaries() if health.workers else [])
        if worker.concurrency == 0
    ]
    for queue in health.queues or []:
        if queue.length and queue.paused:
            problems.append(f"The queue {queue.name} is paused, and holds {queue.length}.")
        elif queue.length and queue.consumers == 0:
            problems.append(f"No worker takes from the queue {queue.name}, which holds {queue.length}.")
    problems += [
        f"{entry.name} is overdue: is beat running?" for entry in health.schedule or [] if _late(entry, health)
    ]
    return problems + _troubles(health)


def _late(entry: ScheduleEntry, health: SystemStatus) -> bool:
    grace = max(OVERDUE, timedelta(seconds=entry.every or 0))
    return entry.next_run_at is None or health.at - entry.next_run_at > grace


def _troubles(health: SystemStatus) -> list[str]:
    problems = []
    if health.jobs is None:
        return []
    waiting = health.jobs.oldest_waiting
    if waiting is not None and health.at - waiting.since > WAITING_TOO_LONG:
        problems.append(f"{waiting.user} has been waiting for too long, for {waiting.name}.")
    if health.jobs.failed >= max(FAILING_AT_LEAST, FAILING * health.jobs.ended):
        problems.append(f"{health.jobs.failed} of the {health.jobs.ended} jobs that ended within the hour failed.")
    return problems


def _figures() -> JobSummary:
    now = utcnow()
    ended = _ended_since(now - HOUR)
    return JobSummary(
        unfinished=_unfinished(now),
        ended=sum(ended.values()),
        failed=ended.get(states.FAILURE, 0),
        oldest_waiting=_oldest_waiting(now),
    )


def _unfinished(now: datetime) -> dict[str, dict[str, int]]:
    step = aliased(Task)
    ages = [(step.created_at > now - timedelta(seconds=below), age) for age, below in AGES.items()]
    query = sa.select(job_state(step).label("state"), sa.case(*ages, else_=OLDER).label("age")).where(
        step.unfinished, stands_at(step)
    )
    each = query.subquery()
    counted = sa.select(each.c.state, each.c.age, sa.func.count()).group_by(each.c.state, each.c.age)
    figures = {state: dict.fromkeys((*AGES, OLDER), 0) for state in states.UNFINISHED}
    for state, age, count in db.session.execute(counted):
        figures[state][age] = count
    return figures


def _ended_since(moment: datetime) -> dict[str, int]:
    step = aliased(Task)
    query = sa.select(step.state, sa.func.count()).where(step.finished_at >= moment, stands_at(step))
    return {row[0]: row[1] for row in db.session.execute(query.group_by(step.state))}


def _oldest_waiting(now: datetime) -> WaitingJobs | None:
    step = aliased(Task)
    worked_on = sa.and_(step.state.in_(states.RUNNING), sa.func.coalesce(step.lease_expires_at, now) > now)
    query = (
        sa.select(User.username, step.created_at, step.root_id, step.name, job_state(step))
        .join(User, User.id == step.user_id)
        .where(step.unfinished, ~worked_on, stands_at(step))
        .order_by(step.created_at)
        .limit(1)
    )
    row = db.session.execute(query).first()
    return WaitingJobs(*row) if row else None
