"""Jobs of all users for operators: pages of a list, details, and the timeline of one job."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import sqlalchemy as sa

from microblog.accounts.models import User
from microblog.database import UtcDateTime
from microblog.extensions import db
from microblog.jobs import job_details
from microblog.jobs.models import Job, jobs_with_ids
from microblog.monitoring.filters import Filters, Order, Search, build_searches
from microblog.pagination import after_key, time_key
from microblog.taskqueue import states
from microblog.taskqueue.models import Task

MAX_SEARCHED = 500  # failed jobs that are searched for a text, per page
BATCH = 1000
ENDED = {states.SUCCESS: "succeeded", states.FAILURE: "failed", states.REVOKED: "cancelled"}
_CURSOR = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6})Z_([!-~]{1,64})", re.ASCII)


class InvalidCursor(ValueError):
    """Raised if a text is not a cursor."""


class Cursor(NamedTuple):
    """Position of a job in a list: `time` is the time of its creation, or of its end with Order.ENDED.

    As text: ``2026-11-21T09:30:00.000000Z_<id>``.
    """

    time: datetime
    root_id: str

    def __str__(self) -> str:
        return time_key(*self)

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Return the cursor whose text is `text`. Raises InvalidCursor."""
        match = _CURSOR.fullmatch(text)
        if match is None:
            raise InvalidCursor(f"{text!r} is not a valid cursor; use one that a list has printed.")
        try:
            return cls(datetime.fromisoformat(match[1]).replace(tzinfo=UTC), match[2])
        except ValueError:
            raise InvalidCursor(f"{text!r} is not a valid cursor: its time does not exist.") from None


@dataclass(frozen=True)
class JobPage:
    """A page of a list: its jobs in order, each with its cursor, and the cursors of the next and the previous page.

    `next` is None at the end, `previous` at the beginning of the list. `searched` is the number of failed jobs
    that were searched for a text, None without a search. If it is MAX_SEARCHED, further jobs may follow `next` even if
    this page contains none.
    """

    jobs: list[Job]
    cursors: list[Cursor]
    next: Cursor | None
    previous: Cursor | None
    searched: int | None


def find_jobs(
    filters: Filters,
    *,
    size: int,
    order: Order = Order.NEWEST,
    after: Cursor | None = None,
    before: Cursor | None = None,
) -> JobPage:
    """Return at most `size` jobs that match `filters`: those after `after`, those before `before`, or the first ones.

    No rows are counted or skipped, so that every page costs the same.
    """
    backwards = before is not None
    listing = _JobListing(filters, order, backwards)
    start = before if backwards else after
    keys = listing.keys(start, size if filters.error is None else MAX_SEARCHED)
    found = [key.cursor for key in keys.items if key.found]
    cursors, truncated = found[:size], len(found) > size
    far = cursors[-1] if truncated else keys.rest
    near = (cursors[0] if cursors else start) if start else None
    if backwards:
        cursors.reverse()
    return JobPage(
        jobs=jobs_with_ids(cursor.root_id for cursor in cursors),
        cursors=cursors,
        next=near if backwards else far,
        previous=far if backwards else near,
        searched=None if filters.error is None else len(keys.items),
    )


def find_job_ids(filters: Filters) -> Iterator[str]:
    """Yield the ids of all jobs that match `filters`, newest first; reads them in batches."""
    listing, start = _JobListing(filters, Order.NEWEST, backwards=False), None
    while True:
        keys = listing.keys(start, BATCH)
        yield from (key.cursor.root_id for key in keys.items if key.found)
        if keys.rest is None:
            return
        start = keys.rest


class _Key(NamedTuple):
    cursor: Cursor
    found: bool


class _Keys(NamedTuple):
    items: list[_Key]
    rest: Cursor | None  # of the last item, if more keys follow it


@dataclass(frozen=True)
class _JobListing:
    """A list of keys, read in its order or backwards."""

    filters: Filters
    order: Order
    backwards: bool

    def keys(self, start: Cursor | None, size: int) -> _Keys:
        """Return at most `size` keys after `start`."""
        rows = [
            row for search in build_searches(self.filters, self.order) for row in self._read(search, start, size + 1)
        ]
        keys = sorted((_Key(Cursor(row[0], row[1]), row[2]) for row in rows), reverse=self._descending)
        items = keys[:size]
        return _Keys(items, items[-1].cursor if len(keys) > size else None)

    @property
    def _descending(self) -> bool:
        return (self.order is not Order.OLDEST) != self.backwards

    def _read(self, search: Search, start: Cursor | None, limit: int) -> list[Any]:
        edge = start and sa.tuple_(sa.literal(start.time, UtcDateTime()), sa.literal(start.root_id))
        query: Any = search.query()
        ordered = after_key(query, (search.time, search.root_id), edge, not self._descending)
        return list(db.session.execute(ordered.limit(limit)))


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

    `what` is one of created, published, first started, asked to stop, to be tried again, succeeded, failed, cancelled.
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
        "asked to stop": step.cancel_requested_at,
        "to be tried again": step.eta if step.state == states.RETRY else None,
        ENDED.get(step.state, ""): step.finished_at,
    }
    for what, at in times.items():
        if at is not None:
            yield what, at
