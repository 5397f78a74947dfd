"""Read the jobs on the screen from the Task table, and repeat a query in a thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from flask import Flask
from sqlalchemy.orm import aliased

from microblog.accounts.models import User
from microblog.database import database_time
from microblog.extensions import db
from microblog.jobs.models import Job, find_job, jobs_with_ids
from microblog.monitoring.filters import Filters, is_current_step
from microblog.monitoring.job_queries import (
    describe_jobs,
    events_of,
    find_jobs,
    is_waiting,
    oldest_waiting_job,
    users_of,
)
from microblog.monitoring.watch.snapshot import Counts, JobLine
from microblog.pagination import PageRequest
from microblog.taskqueue import states
from microblog.taskqueue.models import Task

LIMIT = 500  # maximum number of jobs in the list
SHOW_ENDED_FOR = timedelta(seconds=15)  # how long a job that has ended stays in the list of unfinished jobs
UNFINISHED, FAILED, ALL = "unfinished", "failed", "all"
VIEWS = (UNFINISHED, FAILED, ALL)
SHORTEST_PAUSE = 0.2  # minimum seconds between two queries of a poller, even if it is triggered more often


@dataclass(frozen=True)
class JobQuery:
    """A query: the jobs of a view, the job that is `opened`, and the tasks that are checked for a row."""

    view: str = UNFINISHED
    text: str = ""  # words that unfinished jobs must contain
    opened: str | None = None
    maybe_without_row: frozenset[str] = frozenset()


@dataclass(frozen=True)
class JobQueryResult:
    """The result of a query. `with_row` are the tasks in ``query.maybe_without_row`` that have a row."""

    query: JobQuery
    jobs: list[JobLine]
    counts: Counts
    detail: dict[str, Any] | None
    with_row: frozenset[str]


class JobReader:
    """Reads from the database. It stores which jobs were unfinished, to show them for a while after they end."""

    def __init__(self) -> None:
        self._unfinished: set[str] = set()

    def read(self, query: JobQuery) -> JobQueryResult:
        """Return the result of `query`. Raises DatabaseUnavailable."""
        found = self._jobs(query)
        names = users_of(found)
        opened = find_job(query.opened) if query.opened else None
        return JobQueryResult(
            query,
            [JobLine.of(job, names.get(job.root.user_id, "")) for job in found],
            _counts(database_time(db.session)),
            describe_jobs([opened])[0] | {"timeline": events_of(opened)} if opened else None,
            _with_row(query.maybe_without_row),
        )

    def _jobs(self, query: JobQuery) -> list[Job]:
        if query.view == ALL:
            return find_jobs(Filters(), PageRequest(size=LIMIT)).jobs
        if query.view == FAILED:
            return find_jobs(Filters(states=frozenset({states.FAILURE})), PageRequest(size=LIMIT)).jobs
        unfinished = jobs_with_ids(db.session.scalars(_unfinished_roots(query.text, database_time(db.session))))
        ids = {job.id for job in unfinished}
        ended = self._just_ended(self._unfinished - ids) if not query.text else []
        self._unfinished = {job.id for job in [*unfinished, *ended]}
        return unfinished + ended

    def _just_ended(self, ids: Collection[str]) -> list[Job]:
        since = database_time(db.session) - SHOW_ENDED_FOR
        return [job for job in jobs_with_ids(ids) if job.unfinished or job.changed_at > since]


def _unfinished_roots(text: str, now: datetime) -> sa.Select[str]:
    """Select the ids of unfinished jobs: running jobs first, then waiting ones, each oldest first."""
    step = aliased(Task)
    query = (
        sa.select(step.root_id)
        .outerjoin(User, User.id == step.user_id)
        .where(step.unfinished, is_current_step(step))
        .order_by(sa.case((is_waiting(step, now), 1), else_=0), step.created_at, step.root_id)
        .limit(LIMIT)
    )
    for word in text.split():
        columns = (step.root_id, step.name, step.state, step.queue, step.worker, step.description, User.username)
        query = query.where(sa.or_(*[column.icontains(word, autoescape=True) for column in columns]))
    return query


def _counts(now: datetime) -> Counts:
    step = aliased(Task)
    numbers = sa.select(sa.func.count(), sa.func.count(sa.case((is_waiting(step, now), 1))))
    unfinished, waiting = db.session.execute(numbers.where(step.unfinished, is_current_step(step))).one()
    return Counts(unfinished - waiting, waiting, oldest_waiting_job(now))


def _with_row(ids: Iterable[str]) -> frozenset[str]:
    checked = list(ids)
    return frozenset(db.session.scalars(sa.select(Task.id).where(Task.id.in_(checked)))) if checked else frozenset()


class Poller:
    """A thread that calls `query` in an app context every `interval` seconds, and immediately when triggered.

    After each call, `notify` is called with None, or with a message if the call raised one of the errors in `errors`.
    Other errors end the thread.
    """

    def __init__(
        self,
        app: Flask,
        query: Callable[[], None],
        *,
        interval: float,
        errors: tuple[type[Exception], ...],
        notify: Callable[[str | None], None],
    ) -> None:
        self._app = app
        self._query = query
        self._interval = interval
        self._errors = errors
        self._notify = notify
        self._triggered = threading.Event()
        self._stopped = False
        self._started_at: float | None = None

    def start(self) -> None:
        """Start the thread."""
        threading.Thread(target=self._run, name=f"poll-{self._query.__name__}", daemon=True).start()

    def trigger(self) -> None:
        """Run the query soon."""
        self._triggered.set()

    def stop(self) -> None:
        """Stop the thread. Does not wait for a query in progress."""
        self._stopped = True
        self._triggered.set()

    def waiting_for(self) -> float:
        """Return the age of the query in progress in seconds, or 0 if there is none."""
        started_at = self._started_at
        return time.monotonic() - started_at if started_at is not None else 0.0

    def _run(self) -> None:
        while not self._stopped:
            self._triggered.clear()
            self._started_at = time.monotonic()
            try:
                with self._app.app_context():
                    self._query()
            except self._errors as error:
                self._notify(_message(error))
            else:
                self._notify(None)
            self._started_at = None
            time.sleep(SHORTEST_PAUSE)
            self._triggered.wait(self._interval - SHORTEST_PAUSE)


def _message(error: Exception) -> str:
    """Return the driver's message without the statement that SQLAlchemy adds."""
    return str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
