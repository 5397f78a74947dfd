"""Aggregate finished tasks into hours and totals, each task once.

This keeps statistics fast, and they outlive the rows. Durations are stored as histograms whose buckets can be added.
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
from sqlalchemy.orm import Session, aliased, scoped_session

from microblog.database import database_time
from microblog.extensions import db
from microblog.monitoring.models import RollUp, TaskHour, TaskTotal
from microblog.taskqueue.interface import rows_needed_since
from microblog.taskqueue.models import Task

logger = logging.getLogger(__name__)

LAG = timedelta(minutes=2)
ALLOWED_LATENESS = timedelta(hours=1)
HOUR = timedelta(hours=1)
BATCH = 2_000  # rows per transaction, during which no other process can write on SQLite
PER_DOUBLING = 8  # buckets from one power of two seconds to the next
SHORTEST, LONGEST = -10, 24  # powers of two: 1 ms and half a year; shorter and longer durations count as these


@dataclass
class DurationHistogram:
    """Histogram of durations: bucket k counts those above 2^((k-1)/8) and up to 2^(k/8) seconds.

    A percentile is thus within 4.5 % of the true value, and the number of durations up to a power of two is exact, as a
    Prometheus histogram requires. `seconds` is the sum of all durations.
    """

    seconds: float = 0.0
    buckets: Counter[int] = field(default_factory=Counter)

    @classmethod
    def from_json(cls, seconds: float, buckets: Mapping[str, int]) -> DurationHistogram:
        """Return the histogram that was stored with this sum and these buckets."""
        return cls(seconds, Counter({int(bucket): count for bucket, count in buckets.items()}))

    def to_json(self) -> dict[str, int]:
        """Return the buckets as a JSON object."""
        return {str(bucket): count for bucket, count in sorted(self.buckets.items()) if count}

    @property
    def count(self) -> int:
        """The number of durations."""
        return self.buckets.total()

    @property
    def mean(self) -> float | None:
        """The mean in seconds; None if there are no durations."""
        return self.seconds / self.count if self.count else None

    def observe(self, seconds: float) -> None:
        """Count one duration; a negative one, which two clocks can cause, counts as zero."""
        seconds = max(seconds, 0.0)
        shortest = 2.0**SHORTEST
        bucket = math.ceil(PER_DOUBLING * math.log2(max(seconds, shortest)))
        self.seconds += seconds
        self.buckets[min(bucket, PER_DOUBLING * LONGEST)] += 1

    def add(self, other: DurationHistogram, times: int = 1) -> None:
        """Add the counts of `other`, multiplied by `times`."""
        self.seconds += times * other.seconds
        for bucket, count in other.buckets.items():
            self.buckets[bucket] += times * count

    def percentile(self, share: float) -> float | None:
        """Return the seconds that the fraction `share` of the durations (0 to 1) does not exceed; None without any."""
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

    `jobs` counts the jobs whose *first* task has this name and that ended in this state. `crashes` counts the workers
    that died while running a task, `given_up` the tasks that were given up because of it. `wait` is the time from when
    a task was ready (it was created, or the previous step had ended) to its first start; `run` is the time from there
    to its end, including pauses between attempts. Tasks that never started are in neither.
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
        """Return the aggregate that `row` stores."""
        return cls(
            row.count,
            row.jobs,
            row.attempts,
            row.crashes,
            row.given_up,
            DurationHistogram.from_json(row.wait_seconds, row.wait_buckets),
            DurationHistogram.from_json(row.run_seconds, row.run_buckets),
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
            "wait_buckets": self.wait.to_json(),
            "run_seconds": self.run.seconds,
            "run_buckets": self.run.to_json(),
        }

    def add(self, other: TaskAggregate, times: int = 1) -> None:
        """Add the counts of `other`, multiplied by `times`."""
        self.count += times * other.count
        self.jobs += times * other.jobs
        self.attempts += times * other.attempts
        self.crashes += times * other.crashes
        self.given_up += times * other.given_up
        self.wait.add(other.wait, times)
        self.run.add(other.run, times)


_previous, _next, _root = aliased(Task), aliased(Task), aliased(Task)

_FINISHED = (
    sa.select(
        Task.name,
        Task.state,
        Task.attempts,
        Task.crashes,
        sa.func.coalesce(_previous.finished_at, Task.created_at, type_=Task.created_at.type).label("ready_at"),
        Task.started_at,
        Task.finished_at,
        sa.func.coalesce(_root.name, Task.name).label("job"),
        # A step that fails also ends the following steps, so the state of the job is that of its last step.
        ~sa.exists().where(_next.root_id == Task.root_id, _next.position == Task.position + 1).label("ends_job"),
    )
    .outerjoin(_previous, sa.and_(_previous.root_id == Task.root_id, _previous.position == Task.position - 1))
    .outerjoin(_root, sa.and_(Task.position > 0, _root.id == Task.root_id))
)


def aggregate_tasks(
    session: Session | scoped_session[Any], *conditions: sa.ColumnElement[bool]
) -> dict[AggregateKey, TaskAggregate]:
    """Aggregate the finished tasks that meet the conditions; one on `finished_at` uses its index."""
    rows: Iterable[Any] = session.execute(_FINISHED.where(*conditions).execution_options(yield_per=1000))
    max_crashes = current_app.config["TASK_MAX_CRASHES"]
    aggregates: defaultdict[AggregateKey, TaskAggregate] = defaultdict(TaskAggregate)
    for name, state, attempts, crashes, ready_at, started_at, finished_at, job, ends_job in rows:
        hour = hour_of(finished_at)
        aggregate = aggregates[AggregateKey(hour, name, state)]
        aggregate.count += 1
        aggregate.attempts += attempts
        aggregate.crashes += crashes
        aggregate.given_up += crashes >= max_crashes
        if started_at is not None:
            aggregate.wait.observe((started_at - ready_at).total_seconds())
            aggregate.run.observe((finished_at - started_at).total_seconds())
        if ends_job:
            aggregates[AggregateKey(hour, job, state)].jobs += 1
    return aggregates


def hour_of(time: datetime) -> datetime:
    """Return the beginning of the hour that contains `time`."""
    return time.replace(minute=0, second=0, microsecond=0)


_Sums = TypeVar("_Sums", TaskHour, TaskTotal)


def init_app(app: Flask) -> None:
    """Prevent rows of `app` from being purged before they are aggregated."""

    def needed_since(sender: object) -> datetime:
        return rolled_up_until()

    app.extensions["needed_since"] = needed_since  # signals keep only weak references
    rows_needed_since.connect(needed_since, sender=app.extensions["celery"])


def roll_up(lag: timedelta = LAG) -> int:
    """Aggregate all tasks that finished longer than `lag` ago; returns their number.

    Repeated and concurrent calls are harmless. Raises DatabaseUnavailable; the batches that were added before remain,
    and the next call continues after them.
    """
    until = database_time(db.session) - lag
    added = 0
    while (batch := _roll_up_batch(until)) is not None:
        added += batch
    _finalize_hours()
    return added


def rolled_up_until() -> datetime:
    """Return the time before which all finished rows are aggregated and may be deleted."""
    return db.session.scalars(sa.select(RollUp.settled_until)).one()


def _roll_up_batch(until: datetime) -> int | None:
    """Aggregate the next tasks that finished up to `until`; returns their number, None if `until` is reached."""
    with _locked() as watermark:
        if watermark.until >= until:
            return None
        pending = sa.select(Task.finished_at).where(Task.finished_at > watermark.until, Task.finished_at <= until)
        # Tasks that finished at the same time are in the same batch, since the watermark is a time.
        upto = db.session.scalar(pending.order_by(Task.finished_at).offset(BATCH - 1).limit(1)) or until
        aggregates = aggregate_tasks(db.session, Task.finished_at > watermark.until, Task.finished_at <= upto)
        _add(aggregates)
        watermark.until = upto
        return sum(aggregate.count for aggregate in aggregates.values())


def _finalize_hours() -> None:
    """Add late rows to the hours that ended at least ALLOWED_LATENESS ago; rows deleted since then remain counted."""
    with _locked() as watermark:
        since, until = watermark.settled_until, hour_of(watermark.until - ALLOWED_LATENESS)
        if since >= until:
            return
        if _any_late(since, until):
            logger.warning("tasks that finished from %s to %s were written late; they are added now", since, until)
            _add_late(since, until)
        watermark.settled_until = until


def _any_late(since: datetime, until: datetime) -> bool:
    actual = sa.select(Task.name, Task.state, sa.func.count()).where(*_within(since, until))
    aggregated = sa.select(TaskHour.name, TaskHour.state, sa.func.sum(TaskHour.count)).where(*_hours(since, until))
    counted = {(name, state): count for name, state, count in db.session.execute(aggregated.group_by("name", "state"))}
    rows = db.session.execute(actual.group_by(Task.name, Task.state))
    return any(count > counted.get((name, state), 0) for name, state, count in rows)


def _add_late(since: datetime, until: datetime) -> None:
    stored = {AggregateKey(row.hour, row.name, row.state): TaskAggregate.of(row) for row in _stored(since, until)}
    late = {}
    for key, aggregate in aggregate_tasks(db.session, *_within(since, until)).items():
        previous = stored.get(key, TaskAggregate())
        if aggregate.count >= previous.count:
            aggregate.add(previous, times=-1)
            late[key] = aggregate
    _add(late)


def _within(since: datetime, until: datetime) -> tuple[sa.ColumnElement[bool], ...]:
    return Task.finished_at >= since, Task.finished_at < until


def _hours(since: datetime, until: datetime) -> tuple[sa.ColumnElement[bool], ...]:
    return TaskHour.hour >= since, TaskHour.hour < until


def _stored(since: datetime, until: datetime) -> Sequence[TaskHour]:
    return db.session.scalars(sa.select(TaskHour).where(*_hours(since, until))).all()


def _add(aggregates: Mapping[AggregateKey, TaskAggregate]) -> None:
    if not aggregates:
        return
    hours = {key.hour for key in aggregates}
    _add_to(TaskHour, _stored(min(hours), max(hours) + HOUR), aggregates.items())
    totals = db.session.scalars(sa.select(TaskTotal)).all()
    _add_to(TaskTotal, totals, ((key[1:], aggregate) for key, aggregate in aggregates.items()))


def _add_to(
    table: type[_Sums], stored: Sequence[_Sums], aggregates: Iterable[tuple[tuple[Any, ...], TaskAggregate]]
) -> None:
    """Add aggregates to the rows with their keys, which are in `stored` or are created."""
    key = [column.name for column in sa.inspect(table).primary_key]
    rows = {tuple(getattr(row, name) for name in key): row for row in stored}
    for identity, aggregate in aggregates:
        row = rows.get(identity)
        sums = TaskAggregate.of(row) if row is not None else TaskAggregate()
        sums.add(aggregate)
        if row is None:
            rows[identity] = row = table(**dict(zip(key, identity, strict=True)))
            db.session.add(row)
        for column, value in sums.columns().items():
            setattr(row, column, value)


@contextmanager
def _locked() -> Iterator[RollUp]:
    """Lock the sums in a separate transaction, so that no other process adds to them."""
    db.session.rollback()
    try:
        db.session.execute(sa.update(RollUp).values(runs=RollUp.runs + 1))  # takes the lock first, on SQLite, too
        yield db.session.scalars(sa.select(RollUp)).one()
        db.session.commit()
    finally:
        db.session.rollback()
