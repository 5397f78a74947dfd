"""Adds up finished tasks into hours and totals, each task once: statistics stay fast, and outlive the rows.

A mark in the table `task_roll_up` says up to which `finished_at` tasks are in the sums. One transaction moves it on
and adds what it passes; the row is locked first, so that several may roll up at once. A task gets its `finished_at`
a moment before its row is written. The mark therefore stays LAG behind the clock; and once an hour is over for
SETTLING, its rows are counted again for those that were written later still: by a process that stood still, while the
table was locked, or by a machine whose clock is behind. Only then may rows be deleted (rolled_up_until()).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, TypeVar

import sqlalchemy as sa
from flask import Flask, current_app

from microblog.clock import utcnow
from microblog.extensions import db
from microblog.monitoring.figures import FINISHED, Figures, Key, count, hour_of
from microblog.monitoring.models import RollUp, TaskHour, TaskTotal
from microblog.taskqueue.models import Task
from microblog.taskqueue.signals import rows_needed_since

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

    It does no harm to do so twice, or at the same time. Raises sqlalchemy.exc.DBAPIError; then what was added so far
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
    known = {Key(row.hour, row.name, row.state): Figures.of(row) for row in _stored(since, until)}
    late = {}
    for key, figures in _count(*_within(since, until)).items():
        before = known.get(key, Figures())
        if figures.count >= before.count:
            figures.add(before, times=-1)
            late[key] = figures
    _add(late)


def _count(*within: sa.ColumnElement[bool]) -> Mapping[Key, Figures]:
    rows = db.session.execute(FINISHED.where(*within).execution_options(yield_per=1000))
    return count(rows, max_crashes=current_app.config["TASK_MAX_CRASHES"])


def _within(since: datetime, until: datetime) -> tuple[sa.ColumnElement[bool], ...]:
    return Task.finished_at >= since, Task.finished_at < until


def _hours(since: datetime, until: datetime) -> tuple[sa.ColumnElement[bool], ...]:
    return TaskHour.hour >= since, TaskHour.hour < until


def _stored(since: datetime, until: datetime) -> Sequence[TaskHour]:
    return db.session.scalars(sa.select(TaskHour).where(*_hours(since, until))).all()


def _add(counted: Mapping[Key, Figures]) -> None:
    if not counted:
        return
    hours = {key.hour for key in counted}
    _add_to(TaskHour, _stored(min(hours), max(hours) + HOUR), counted.items())
    totals = db.session.scalars(sa.select(TaskTotal)).all()
    _add_to(TaskTotal, totals, ((key[1:], figures) for key, figures in counted.items()))


def _add_to(table: type[_Sums], stored: Sequence[_Sums], counted: Iterable[tuple[tuple[Any, ...], Figures]]) -> None:
    """Add figures to the rows with their keys, which are `stored` or else new."""
    key = [column.name for column in sa.inspect(table).primary_key]
    rows = {tuple(getattr(row, name) for name in key): row for row in stored}
    for identity, figures in counted:
        row = rows.get(identity)
        sums = Figures.of(row) if row is not None else Figures()
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
