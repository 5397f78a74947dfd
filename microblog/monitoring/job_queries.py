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
from microblog.monitoring.filters import Filters, Order, Search, searches
from microblog.taskqueue import states
from microblog.taskqueue.models import Task

LOOK_THROUGH = 500  # failed jobs that are looked through for a text, for one page
BATCH = 1000
_CURSOR = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6})Z_([!-~]{1,64})", re.ASCII)


class InvalidCursor(ValueError):
    """The text names no place in a list."""


class Cursor(NamedTuple):
    """A job's place in a list: `moment` is when it was created (Order.ENDED: when it ended). As text
    ``2026-11-21T09:30:00.000000Z_<id>``.
    """

    moment: datetime
    root_id: str

    def __str__(self) -> str:
        moment = self.moment.astimezone(UTC).replace(tzinfo=None)
        return f"{moment.isoformat(timespec='microseconds')}Z_{self.root_id}"

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """The cursor that was printed as `text`. Raises InvalidCursor."""
        match = _CURSOR.fullmatch(text)
        if match is None:
            raise InvalidCursor(f"{text!r} is no place in a list; take one that a list has printed.")
        try:
            return cls(datetime.fromisoformat(match[1]).replace(tzinfo=UTC), match[2])
        except ValueError:
            raise InvalidCursor(f"{text!r} is no place in a list: there is no such time.") from None


@dataclass(frozen=True)
class JobPage:
    """A part of a list: its jobs in order, each with its cursor, and the cursors by which its neighbours are asked for.

    `next` is None at the end, `previous` at the beginning of the list. `looked_through` is the number of failed jobs
    in which a text was looked for, None if none was: where it is LOOK_THROUGH there may be more behind `next`,
    even if this page has no job at all.
    """

    jobs: list[Job]
    cursors: list[Cursor]
    next: Cursor | None
    previous: Cursor | None
    looked_through: int | None


def find_jobs(
    filters: Filters,
    *,
    size: int,
    order: Order = Order.NEWEST,
    after: Cursor | None = None,
    before: Cursor | None = None,
) -> JobPage:
    """At most `size` of the jobs that `filters` let through: those behind `after`, or those in front of `before`.

    Without either, the first. Nothing is counted and nothing skipped over, so that each page costs the same.
    """
    backwards = before is not None
    listing = _Listing(filters, order, backwards)
    place = before if backwards else after
    keys = listing.keys(place, size if filters.error is None else LOOK_THROUGH)
    found = [key.cursor for key in keys.items if key.found]
    cursors, cut = found[:size], len(found) > size
    far = cursors[-1] if cut else keys.rest
    near = (cursors[0] if cursors else place) if place else None
    if backwards:
        cursors.reverse()
    return JobPage(
        jobs=jobs_with_ids(cursor.root_id for cursor in cursors),
        cursors=cursors,
        next=near if backwards else far,
        previous=far if backwards else near,
        looked_through=None if filters.error is None else len(keys.items),
    )


def find_job_ids(filters: Filters) -> Iterator[str]:
    """The ids of all jobs that `filters` let through, newest first, read in batches."""
    listing, place = _Listing(filters, Order.NEWEST, backwards=False), None
    while True:
        keys = listing.keys(place, BATCH)
        yield from (key.cursor.root_id for key in keys.items if key.found)
        if keys.rest is None:
            return
        place = keys.rest


class _Key(NamedTuple):
    cursor: Cursor
    found: bool


class _Keys(NamedTuple):
    items: list[_Key]
    rest: Cursor | None  # behind which there are more


@dataclass(frozen=True)
class _Listing:
    """A list of keys, read from one end."""

    filters: Filters
    order: Order
    backwards: bool

    def keys(self, place: Cursor | None, size: int) -> _Keys:
        """At most `size` keys behind `place`."""
        rows = [row for search in searches(self.filters, self.order) for row in self._read(search, place, size + 1)]
        keys = sorted((_Key(Cursor(row[0], row[1]), row[2]) for row in rows), reverse=self._descending)
        items = keys[:size]
        return _Keys(items, items[-1].cursor if len(keys) > size else None)

    @property
    def _descending(self) -> bool:
        return (self.order is not Order.OLDEST) != self.backwards

    def _read(self, search: Search, place: Cursor | None, limit: int) -> list[Any]:
        edge = sa.tuple_(search.moment, search.root_id)
        query = search.query()
        if place is not None:
            key = sa.tuple_(sa.literal(place.moment, UtcDateTime()), sa.literal(place.root_id))
            query = query.where(edge < key if self._descending else edge > key)
        columns = (search.moment, search.root_id)
        query = query.order_by(*(column.desc() if self._descending else column for column in columns))
        return list(db.session.execute(query.limit(limit)))


def users_of(listed: Collection[Job]) -> dict[int | None, str]:
    """The names of the users whose jobs are `listed`, by their ids."""
    ids = {job.root.user_id for job in listed}
    return {
        row.id: row.username for row in db.session.execute(sa.select(User.id, User.username).where(User.id.in_(ids)))
    }


def describe_jobs(listed: Collection[Job]) -> list[dict[str, Any]]:
    """The jobs in JSON: as their users see them, and what only operators see.

    `queue`, `worker`, `traceback`, `published_at` and `lease_expires_at` of a job are its current step's.
    """
    names = users_of(listed)
    return [_describe(job, names.get(job.root.user_id)) for job in listed]


def describe_job_fully(job: Job) -> dict[str, Any]:
    """Like describe_jobs(), with job_details.details_of() and in `retried_as` the ids of the jobs that retried it."""
    again = sa.select(Task.id).where(Task.retried_from == job.id).order_by(Task.created_at)
    return describe_jobs([job])[0] | job_details.details_of(job) | {"retried_as": list(db.session.scalars(again))}


def _describe(job: Job, username: str | None) -> dict[str, Any]:
    facts = job.to_dict()
    steps = [known | _operational(step) for known, step in zip(facts["steps"], job.steps, strict=True)]
    current = steps[job.current.position]
    of_current = ("queue", "worker", "traceback", "published_at", "lease_expires_at")
    return facts | {"user": username} | {key: current[key] for key in of_current} | {"steps": steps}


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


ENDED = {states.SUCCESS: "succeeded", states.FAILURE: "failed", states.REVOKED: "cancelled"}


@dataclass(frozen=True)
class JobEvent:
    """Something that happened to a step: `what`, when, and how long after the job was created."""

    at: datetime
    after: timedelta
    step: Task
    what: str


def events_of(job: Job) -> list[JobEvent]:
    """The events of a job's steps that have left a time in their rows, oldest first; also a retry that is yet to come.

    `what` is one of created, published, first started, asked to stop, to be tried again, succeeded, failed, cancelled.
    """
    events = (JobEvent(at, at - job.root.created_at, step, what) for step in job.steps for what, at in _times(step))
    return sorted(events, key=lambda event: (event.at, event.step.position))


def _times(step: Task) -> Iterator[tuple[str, datetime]]:
    happened = {
        "created": step.created_at,
        "published": step.published_at,
        "first started": step.started_at,
        "asked to stop": step.cancel_requested_at,
        "to be tried again": step.eta if step.state == states.RETRY else None,
        ENDED.get(step.state, ""): step.finished_at,
    }
    for what, at in happened.items():
        if at is not None:
            yield what, at
