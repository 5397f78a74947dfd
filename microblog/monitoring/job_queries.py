"""Jobs of all users for operators: pages of a list, details, and the timeline of one job."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from microblog.accounts.models import User
from microblog.database import UtcDateTime
from microblog.extensions import db
from microblog.jobs import job_details
from microblog.jobs.models import Job, jobs_with_ids
from microblog.monitoring.filters import Filters, Order, build_searches, is_current_step, job_state
from microblog.pagination import PageRequest, after_key, parse_time_key, time_key
from microblog.taskqueue import states
from microblog.taskqueue.models import Task

MAX_SEARCHED = 500  # failed jobs that are searched for a text, per page
BATCH = 1000
ENDED = {states.SUCCESS: "succeeded", states.FAILURE: "failed", states.REVOKED: "cancelled"}


class _Row(NamedTuple):
    """A job in a list: `time` is the time of its creation, or of its end with Order.ENDED."""

    time: datetime
    root_id: str
    found: bool

    @property
    def key(self) -> str:
        return time_key(self.time, self.root_id)


@dataclass(frozen=True)
class JobPage:
    """A page of a list: its jobs in order, each with its key, and the keys of the next and the previous page.

    `next` is None at the end, `previous` at the beginning of the list. `searched` is the number of failed jobs
    that were searched for a text, None without a search. If it is MAX_SEARCHED, further jobs may follow `next` even if
    this page contains none.
    """

    jobs: list[Job]
    keys: list[str]
    next: str | None
    previous: str | None
    searched: int | None


def find_jobs(filters: Filters, page_request: PageRequest, order: Order = Order.NEWEST) -> JobPage:
    """Return the requested page of the jobs that match `filters`: ``after`` a key, ``before`` one, or the first.

    Unlike in other lists, the next page is ``after`` a key in every order, and a page near the beginning may be short.
    No rows are counted or skipped, so that every page costs the same. Raises InvalidKey.
    """
    before, after, size = page_request.checked()
    backwards = before is not None
    start = before if backwards else after
    rows, more = _read(filters, order, start, backwards, size if filters.error is None else MAX_SEARCHED)
    found = [row for row in rows if row.found]
    shown = found[:size]
    far = shown[-1].key if len(found) > size else rows[-1].key if more else None
    near = shown[0].key if start and shown else start
    if backwards:
        shown.reverse()
    return JobPage(
        jobs=jobs_with_ids(row.root_id for row in shown),
        keys=[row.key for row in shown],
        next=near if backwards else far,
        previous=far if backwards else near,
        searched=None if filters.error is None else len(rows),
    )


def find_job_ids(filters: Filters) -> Iterator[str]:
    """Yield the ids of all jobs that match `filters`, newest first; reads them in batches."""
    start: str | None = None
    more = True
    while more:
        rows, more = _read(filters, Order.NEWEST, start, False, BATCH)
        yield from (row.root_id for row in rows if row.found)
        start = rows[-1].key if more else None


def _read(filters: Filters, order: Order, start: str | None, backwards: bool, size: int) -> tuple[list[_Row], bool]:
    """Return the `size` rows after the key `start`, or before it if `backwards`, nearest first, and whether more exist.

    Raises InvalidKey.
    """
    upward = (order is Order.OLDEST) != backwards
    edge = None
    if start is not None:
        time, root_id = parse_time_key(start)
        edge = sa.tuple_(sa.literal(time, UtcDateTime()), sa.literal(root_id))
    rows: list[_Row] = []
    for search in build_searches(filters, order):
        query: Any = search.query()
        nearest = after_key(query, (search.time, search.root_id), edge, upward).limit(size + 1)
        rows += [_Row(*row) for row in db.session.execute(nearest)]
    rows.sort(reverse=not upward)
    return rows[:size], len(rows) > size


@dataclass(frozen=True)
class TaskOutcomes:
    """Numbers of tasks that ended, and of those of them that failed: recently, and within the last hour."""

    ended: int
    failed: int
    ended_in_hour: int
    failed_in_hour: int


@dataclass(frozen=True)
class WaitingJob:
    """A job that no worker runs: its user, its creation time, and the job itself."""

    user: str
    since: datetime
    job_id: str
    name: str
    state: str


def oldest_waiting_job(now: datetime) -> WaitingJob | None:
    """Return the job of a user that was created first of those that no worker runs."""
    step = aliased(Task)
    query = (
        sa.select(User.username, step.created_at, step.root_id, step.name, job_state(step))
        .join(User, User.id == step.user_id)
        .where(step.unfinished, is_waiting(step, now), is_current_step(step))
        .order_by(step.created_at)
        .limit(1)
    )
    row = db.session.execute(query).first()
    return WaitingJob(*row) if row else None


def is_waiting(step: type[Task], now: datetime) -> sa.ColumnElement[bool]:
    """Return the condition that no worker holds a valid lease of `step`, the current step of an unfinished job."""
    return ~sa.and_(step.state.in_(states.RUNNING), sa.func.coalesce(step.lease_expires_at, now) > now)


@dataclass(frozen=True)
class WaitingTasks:
    """The waiting tasks of one name in one queue: since when the first has waited to start, or to be taken over.

    `published` tells whether they have been published; those that have not are counted from when they were due.
    """

    queue: str
    name: str
    published: bool
    since: datetime


def waiting_tasks(session: Session) -> list[WaitingTasks]:
    """Return the tasks that wait to be started, retried, or taken over from a worker that is gone, oldest first.

    Steps whose previous step has not succeeded do not count. A time in the future is that of a retry, or the end of the
    lease of a running task. The cost grows with the number of unfinished tasks.
    """
    previous = aliased(Task)
    since = sa.case(
        (Task.state.in_(states.RUNNING), sa.func.coalesce(Task.lease_expires_at, Task.updated_at)),
        (Task.state == states.RETRY, Task.eta),
        # The eta of a pending task is when a worker without this task, which has returned it, lets it be published.
        (Task.published_at.is_(None), sa.func.coalesce(Task.eta, previous.finished_at, Task.created_at)),
        else_=sa.func.coalesce(previous.finished_at, Task.created_at),
    )
    published = Task.published_at.is_not(None)
    oldest = sa.type_coerce(sa.func.min(since), Task.created_at.type)
    rows = session.execute(
        sa.select(Task.queue, Task.name, published, oldest)
        .outerjoin(previous, sa.and_(previous.root_id == Task.root_id, previous.position == Task.position - 1))
        .where(Task.unfinished, sa.or_(Task.position == 0, previous.state == states.SUCCESS))
        .group_by(Task.queue, Task.name, published)
        .order_by(oldest)
    )
    return [WaitingTasks(queue, name, bool(sent), at) for queue, name, sent, at in rows if at is not None]


def active_queues(since: datetime) -> list[str]:
    """Return the queues of which a task has started, made progress, asked for a retry or ended since then."""
    running = sa.select(Task.queue).where(Task.unfinished, Task.state != states.PENDING, Task.updated_at > since)
    ended = sa.select(Task.queue).where(Task.finished_at > since, Task.started_at.is_not(None))
    return sorted(db.session.scalars(sa.union(running, ended)))


def recent_outcomes(hour_ago: datetime, since: datetime) -> dict[str, TaskOutcomes]:
    """Return the outcomes of the tasks that ended since these times, by name, without cancelled tasks.

    A step that failed because the previous one did was never started and does not count; neither does a UserError.
    """
    later, failed = Task.finished_at > since, Task.state == states.FAILURE

    def count(condition: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
        return sa.func.count(sa.case((condition, 1)))

    rows = db.session.execute(
        sa.select(Task.name, count(later), count(sa.and_(later, failed)), sa.func.count(), count(failed))
        .where(Task.finished_at > hour_ago, Task.state != states.REVOKED, Task.started_at.is_not(None))
        .where(Task.traceback.is_distinct_from(""))  # as after a UserError
        .group_by(Task.name)
        .order_by(Task.name)
    )
    return {name: TaskOutcomes(*counts) for name, *counts in rows}


def users_of(jobs: Collection[Job]) -> dict[int | None, str]:
    """Return the names of the users of `jobs`, by id."""
    ids = {job.root.user_id for job in jobs}
    return {
        row.id: row.username for row in db.session.execute(sa.select(User.id, User.username).where(User.id.in_(ids)))
    }


def describe_jobs(jobs: Collection[Job]) -> list[dict[str, Any]]:
    """Return jobs as JSON objects, with the fields that their users see and those for operators only.

    `queue`, `worker`, `traceback`, `published_at` and `lease_expires_at` of a job are those of its current step.
    """
    names = users_of(jobs)
    return [_describe(job, names.get(job.root.user_id)) for job in jobs]


def describe_job(job: Job) -> dict[str, Any]:
    """Return describe_jobs() of `job` with job_details.details_of() and, in `retried_as`, the ids of its retries."""
    retries = sa.select(Task.id).where(Task.retried_from == job.id).order_by(Task.created_at)
    return describe_jobs([job])[0] | job_details.details_of(job) | {"retried_as": list(db.session.scalars(retries))}


def _describe(job: Job, username: str | None) -> dict[str, Any]:
    fields = job.to_dict()
    steps = [described | _operational(step) for described, step in zip(fields["steps"], job.steps, strict=True)]
    current = steps[job.current.position]
    from_current = ("queue", "worker", "traceback", "published_at", "lease_expires_at")
    return fields | {"user": username} | {key: current[key] for key in from_current} | {"steps": steps}


def _operational(step: Task) -> dict[str, Any]:
    return {
        "position": step.position,
        "queue": step.queue,
        "worker": step.worker,
        "crashes": step.crashes,
        "args": step.signature.get("args"),
        "kwargs": step.signature.get("kwargs"),
        "traceback": step.traceback,
        "published_at": step.published_at,
        "eta": step.eta,
        "lease_expires_at": step.lease_expires_at,
        "cancel_requested_at": step.cancel_requested_at,
        "updated_at": step.updated_at,
    }


@dataclass(frozen=True)
class JobEvent:
    """An event of a step: `what` happened, when, and how long after the creation of the job."""

    at: datetime
    after: timedelta
    position: int  # of the step
    name: str
    what: str


def events_of(job: Job) -> list[JobEvent]:
    """Return the events of a job's steps whose times the rows contain, oldest first, including a future retry.

    `what` is one of created, published, first started, cancellation requested, to be tried again, succeeded, failed,
    cancelled.
    """
    created = job.root.created_at
    events = (
        JobEvent(at, at - created, step.position, step.name, what) for step in job.steps for what, at in _times(step)
    )
    return sorted(events, key=lambda event: (event.at, event.position))


def _times(step: Task) -> Iterator[tuple[str, datetime]]:
    times = {
        "created": step.created_at,
        "published": step.published_at,
        "first started": step.started_at,
        "cancellation requested": step.cancel_requested_at,
        "to be tried again": step.eta if step.state == states.RETRY else None,
        ENDED.get(step.state, ""): step.finished_at,
    }
    for what, at in times.items():
        if at is not None:
            yield what, at
