"""Adds up finished tasks into hours and totals, each task once: statistics stay fast, and outlive the rows.

A mark in the table `task_roll_up` says up to which `finished_at` tasks are in the sums. One transaction moves it on
and adds what it passes; the row is locked first, so that several may roll up at once. A task gets its `finished_at`
a moment before its row is written. The mark therefore stays LAG behind the clock; and once an hour is SETTLING old,
its rows are counted again for those that were written later still, by a process that stood still or by a machine whose
clock is behind. Only then may rows be deleted (rolled_up_until()).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, TypeVar

import sqlalchemy as sa
from flask import current_app

from microblog.clock import utcnow
from microblog.extensions import db
from microblog.monitoring.figures import FINISHED, Figures, Key, count, hour_of
from microblog.monitoring.models import RollUp, TaskHour, TaskTotal
from microblog.taskqueue.models import Task

_Sums = TypeVar("_Sums", TaskHour, TaskTotal)

logger = logging.getLogger(__name__)

LAG = timedelta(minutes=2)
SETTLING = timedelta(hours=1)
HOUR = timedelta(hours=1)
BATCH = 10_000  # rows added in one transaction


def roll_up(lag: timedelta = LAG) -> int:
    """Add all tasks to the sums that finished longer than `lag` ago; returns how many were added.

    It does no harm to do so twice, or at the same time. Raises sqlalchemy.exc.DBAPIError; then what was added so far
    stays, and the next call goes on from there.
    """
    until = utcnow() - lag
    added = 0
    while (batch := _roll_up_batch(until)) is not None:
        added += batch
    while _settle_next_hour():
        pass
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
        for key, figures in counted.items():
            _add(key, figures)
        mark.until = upto
        return sum(figures.count for figures in counted.values())


def _settle_next_hour() -> bool:
    """Look whether tasks of the oldest hour that is not settled came late; returns whether there was such an hour."""
    with _locked() as mark:
        oldest = db.session.scalar(
            sa.select(Task.finished_at)
            .where(Task.finished_at >= mark.settled_until)
            .order_by(Task.finished_at)
            .limit(1)
        )
        last = hour_of(mark.until - SETTLING)
        hour = min(hour_of(oldest), last) if oldest else last
        mark.settled_until = max(mark.settled_until, hour)
        if hour >= last:
            return False
        _settle(hour)
        mark.settled_until = hour + HOUR
        return True


def _settle(hour: datetime) -> None:
    """Add the tasks of `hour` that are in no sum. Rows that were deleted meanwhile stay counted."""
    within = (Task.finished_at >= hour, Task.finished_at < hour + HOUR)
    there = db.session.execute(
        sa.select(Task.name, Task.state, sa.func.count()).where(*within).group_by(Task.name, Task.state)
    ).all()
    known = {
        (row.name, row.state): Figures.of(row)
        for row in db.session.scalars(sa.select(TaskHour).where(TaskHour.hour == hour))
    }
    if all(rows <= known.get((name, state), Figures()).count for name, state, rows in there):
        return
    logger.warning("tasks that finished in the hour of %s were written late; they are counted now", hour)
    for key, figures in _count(*within).items():
        before = known.get((key.name, key.state), Figures())
        if figures.count >= before.count:
            figures.add(before, times=-1)
            _add(key, figures)


def _count(*within: sa.ColumnElement[bool]) -> Mapping[Key, Figures]:
    rows = db.session.execute(FINISHED.where(*within).execution_options(yield_per=1000))
    return count(rows, max_crashes=current_app.config["TASK_MAX_CRASHES"])


def _add(key: Key, figures: Figures) -> None:
    _add_to(TaskHour, figures, **key._asdict())
    _add_to(TaskTotal, figures, name=key.name, state=key.state)


def _add_to(table: type[_Sums], figures: Figures, **identity: Any) -> None:
    stored = db.session.get(table, tuple(identity.values()))
    sums = Figures.of(stored) if stored else Figures()
    sums.add(figures)
    db.session.merge(table(**identity, **sums.columns()))


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
