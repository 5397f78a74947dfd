"""Aggregate finished tasks into hours and totals, each task once.

Statistics stay fast that way, and outlive the rows. Durations are kept in histograms whose buckets can be added.
"""

from __future__ import annotations

import logging
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple, TypeVar

import sqlalchemy as sa
from flask import Flask, current_app
from sqlalchemy.orm import aliased

from microblog.clock import utcnow
from microblog.extensions import db
from microblog.monitoring.models import RollUp, TaskHour, TaskTotal
from microblog.taskqueue.interface import rows_needed_since
from microblog.taskqueue.models import Task

PER_DOUBLING = 8  # buckets from one power of two seconds to the next
SHORTEST, LONGEST = -10, 24  # powers of two: 1 ms and half a year; what is shorter or longer counts as that


@dataclass
class DurationHistogram:
    """Counts of durations: bucket k has those above 2^((k-1)/8) and up to 2^(k/8) seconds.

    A percentile is thus within 4.5 % of the true one, and how many are at most a power of two is known exactly, as a
    Prometheus histogram asks. `seconds` is the sum of them all.
    """

    seconds: float = 0.0
    buckets: Counter[int] = field(default_factory=Counter)

    @classmethod
    def from_json(cls, seconds: float, buckets: Mapping[str, int]) -> DurationHistogram:
        """The sketch that was stored."""
        return cls(seconds, Counter({int(bucket): count for bucket, count in buckets.items()}))

    def to_json(self) -> dict[str, int]:
        """The buckets, as JSON has them."""
        return {str(bucket): count for bucket, count in sorted(self.buckets.items()) if count}

    @property
    def count(self) -> int:
        """The number of durations."""
        return self.buckets.total()

    @property
    def mean(self) -> float | None:
        """Seconds, None if there are no durations."""
        return self.seconds / self.count if self.count else None

    def observe(self, seconds: float) -> None:
        """Count one duration; one below zero, which two clocks can make, is zero."""
        seconds = max(seconds, 0.0)
        shortest = 2.0**SHORTEST
        bucket = math.ceil(PER_DOUBLING * math.log2(max(seconds, shortest)))
        self.seconds += seconds
        self.buckets[min(bucket, PER_DOUBLING * LONGEST)] += 1

    def add(self, other: DurationHistogram, times: int = 1) -> None:
        """Count all that `other` has counted, `times` times."""
        self.seconds += times * other.seconds
        for bucket, count in other.buckets.items():
            self.buckets[bucket] += times * count

    def percentile(self, share: float) -> float | None:
        """The seconds that `share` (0 to 1) of the durations do not exceed; None if there are none."""
        rank = max(1, math.ceil(share * self.count))
        for bucket, count in sorted(self.buckets.items()):
            rank -= count
            if rank <= 0:
                return float(2 ** ((bucket - 0.5) / PER_DOUBLING))
        return None

    def at_most(self, powers: Iterable[int]) -> list[int]:
        """Return the number of durations of at most 2^power seconds, for each of `powers`."""
        return [
            sum(count for bucket, count in self.buckets.items() if bucket <= PER_DOUBLING * power) for power in powers
        ]


class AggregateKey(NamedTuple):
    """The key by which tasks are aggregated."""

    hour: datetime
    name: str
    state: str


@dataclass
class TaskAggregate:
    """Sums over finished tasks of one name and state.

    `jobs` counts the jobs that *began* with a task of this name and ended in this state. `crashes` are workers that
    died under a task, `given_up` the tasks that were given up for it. `wait` is the time from when a task could have
    begun (it was created, or the step before it had ended) to its first start; `run` from there to its end, pauses
    between attempts included. Tasks that never started are in neither.
    """

    count: int = 0
    jobs: int = 0
    attempts: int = 0
    crashes: int = 0
    given_up: int = 0
    wait: DurationHistogram = field(default_factory=DurationHistogram)
    run: DurationHistogram = field(default_factory=DurationHistogram)

    @classmethod
    def of(cls, row: TaskHour | TaskTotal) -> TaskAggregate:
        """Make an aggregate from stored columns."""
        return cls(
            row.count,
            row.jobs,
            row.attempts,
            row.crashes,
            row.given_up,
            DurationHistogram.from_json(row.wait_seconds, row.wait_sketch),
            DurationHistogram.from_json(row.run_seconds, row.run_sketch),
        )

    def columns(self) -> dict[str, Any]:
        """Return the columns to store."""
        return {
            "count": self.count,
            "jobs": self.jobs,
            "attempts": self.attempts,
            "crashes": self.crashes,
            "given_up": self.given_up,
            "wait_seconds": self.wait.seconds,
            "wait_sketch": self.wait.to_json(),
            "run_seconds": self.run.seconds,
            "run_sketch": self.run.to_json(),
        }

    def add(self, other: TaskAggregate, times: int = 1) -> None:
        """Count all that `other` has counted, `times` times."""
        self.count += times * other.count
        self.jobs += times * other.jobs
        self.attempts += times * other.attempts
        self.crashes += times * other.crashes
        self.given_up += times * other.given_up
        self.wait.add(other.wait, times)
        self.run.add(other.run, times)


_before, _behind, _root = aliased(Task), aliased(Task), aliased(Task)

#: Of finished tasks all that count() needs, by the index on `finished_at` if that is narrowed.
FINISHED = (
    sa.select(
        Task.name,
        Task.state,
        Task.attempts,
        Task.crashes,
        sa.func.coalesce(_before.finished_at, Task.created_at, type_=Task.created_at.type).label("ready_at"),
        Task.started_at,
        Task.finished_at,
        sa.func.coalesce(_root.name, Task.name).label("job"),
        # A step that fails takes those behind it along: so the last step tells how the job ended.
        ~sa.exists().where(_behind.root_id == Task.root_id, _behind.position == Task.position + 1).label("ends_job"),
    )
    .outerjoin(_before, sa.and_(_before.root_id == Task.root_id, _before.position == Task.position - 1))
    .outerjoin(_root, sa.and_(Task.position > 0, _root.id == Task.root_id))
)


def aggregate_tasks(rows: Iterable[Any], *, max_crashes: int) -> dict[AggregateKey, TaskAggregate]:
    """Add up the rows that FINISHED selects; with `max_crashes` workers dead under it a task was given up."""
    counted: defaultdict[AggregateKey, TaskAggregate] = defaultdict(TaskAggregate)
    for name, state, attempts, crashes, ready_at, started_at, finished_at, job, ends_job in rows:
        hour = hour_of(finished_at)
        figures = counted[AggregateKey(hour, name, state)]
        figures.count += 1
        figures.attempts += attempts
        figures.crashes += crashes
        figures.given_up += crashes >= max_crashes
        if started_at is not None:
            figures.wait.observe((started_at - ready_at).total_seconds())
            figures.run.observe((finished_at - started_at).total_seconds())
        if ends_job:
            counted[AggregateKey(hour, job, state)].jobs += 1
    return counted


def hour_of(time: datetime) -> datetime:
    """Return the beginning of the hour that contains `time`."""
    return time.replace(minute=0, second=0, microsecond=0)


_Sums = TypeVar("_Sums", TaskHour, TaskTotal)

logger = logging.getLogger(__name__)

LAG = timedelta(minutes=2)
SETTLING = timedelta(hours=1)
HOUR = timedelta(hours=1)
BATCH = 2_000  # rows added in one transaction: on SQLite nobody else writes meanwhile


def init_app(app: Flask) -> None:
    """Keep rows of `app` from being purged before they are in the sums."""

    def needed_since(sender: object) -> datetime:
        return rolled_up_until()

    app.extensions["needed_since"] = needed_since  # signals keep only weak references
    rows_needed_since.connect(needed_since, sender=app.extensions["celery"])


def roll_up(lag: timedelta = LAG) -> int:
    """Add all tasks to the sums that finished longer than `lag` ago; returns how many were added.

    It does no harm to do so twice, or at the same time. Raises DatabaseUnavailable; then what was added so far
    stays, and the next call goes on from there.
    """
    until = utcnow() - lag
    added = 0
    while (batch := _roll_up_batch(until)) is not None:
        added += batch
    _settle()
    return added


def rolled_up_until() -> datetime:
    """Rows that finished before then are in the sums for good, and may be deleted."""
    return db.session.scalars(sa.select(RollUp.settled_until)).one()


def _roll_up_batch(until: datetime) -> int | None:
    """Add the next tasks that finished up to `until`; returns how many, None if there were no more."""
    with _locked() as mark:
        if mark.until >= until:
            return None
        ahead = sa.select(Task.finished_at).where(Task.finished_at > mark.until, Task.finished_at <= until)
        # Whole instants, for the mark to be able to tell those added from those to come.
        upto = db.session.scalar(ahead.order_by(Task.finished_at).offset(BATCH - 1).limit(1)) or until
        counted = _count(Task.finished_at > mark.until, Task.finished_at <= upto)
        _add(counted)
        mark.until = upto
        return sum(figures.count for figures in counted.values())


def _settle() -> None:
    """Add what was written late in hours that are over for SETTLING. Rows that were deleted meanwhile stay counted."""
    with _locked() as mark:
        since, until = mark.settled_until, hour_of(mark.until - SETTLING)
        if since >= until:
            return
        if _any_late(since, until):
            logger.warning("tasks that finished from %s to %s were written late; they are counted now", since, until)
            _add_late(since, until)
        mark.settled_until = until


def _any_late(since: datetime, until: datetime) -> bool:
    there = sa.select(Task.name, Task.state, sa.func.count()).where(*_within(since, until))
    known = sa.select(TaskHour.name, TaskHour.state, sa.func.sum(TaskHour.count)).where(*_hours(since, until))
    counted = {(name, state): count for name, state, count in db.session.execute(known.group_by("name", "state"))}
    rows = db.session.execute(there.group_by(Task.name, Task.state))
    return any(count > counted.get((name, state), 0) for name, state, count in rows)


def _add_late(since: datetime, until: datetime) -> None:
    known = {AggregateKey(row.hour, row.name, row.state): TaskAggregate.of(row) for row in _stored(since, until)}
    late = {}
    for key, figures in _count(*_within(since, until)).items():
        before = known.get(key, TaskAggregate())
        if figures.count >= before.count:
            figures.add(before, times=-1)
            late[key] = figures
    _add(late)


def _count(*within: sa.ColumnElement[bool]) -> Mapping[AggregateKey, TaskAggregate]:
    rows = db.session.execute(FINISHED.where(*within).execution_options(yield_per=1000))
    return aggregate_tasks(rows, max_crashes=current_app.config["TASK_MAX_CRASHES"])


def _within(since: datetime, until: datetime) -> tuple[sa.ColumnElement[bool], ...]:
    return Task.finished_at >= since, Task.finished_at < until


def _hours(since: datetime, until: datetime) -> tuple[sa.ColumnElement[bool], ...]:
    return TaskHour.hour >= since, TaskHour.hour < until


def _stored(since: datetime, until: datetime) -> Sequence[TaskHour]:
    return db.session.scalars(sa.select(TaskHour).where(*_hours(since, until))).all()


def _add(counted: Mapping[AggregateKey, TaskAggregate]) -> None:
    if not counted:
        return
    hours = {key.hour for key in counted}
    _add_to(TaskHour, _stored(min(hours), max(hours) + HOUR), counted.items())
    totals = db.session.scalars(sa.select(TaskTotal)).all()
    _add_to(TaskTotal, totals, ((key[1:], figures) for key, figures in counted.items()))


def _add_to(
    table: type[_Sums], stored: Sequence[_Sums], counted: Iterable[tuple[tuple[Any, ...], TaskAggregate]]
) -> None:
    """Add figures to the rows with their keys, which are `stored` or else new."""
    key = [column.name for column in sa.inspect(table).primary_key]
    rows = {tuple(getattr(row, name) for name in key): row for row in stored}
    for identity, figures in counted:
        row = rows.get(identity)
        sums = TaskAggregate.of(row) if row is not None else TaskAggregate()
        sums.add(figures)
        if row is None:
            rows[identity] = row = table(**dict(zip(key, identity, strict=True)))
            db.session.add(row)
        for column, value in sums.columns().items():
            setattr(row, column, value)


@contextmanager
def _locked() -> Iterator[RollUp]:
    """A transaction of its own in which nobody else adds to the sums."""
    db.session.rollback()
    try:
        db.session.execute(sa.update(RollUp).values(runs=RollUp.runs + 1))  # on SQLite, too, the lock comes first
        yield db.session.scalars(sa.select(RollUp)).one()
        db.session.commit()
    finally:
        db.session.rollback()
