"""Statistics of tasks by hour and in total, from the aggregates and from newer rows; failures grouped by cause."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

import sqlalchemy as sa
from flask import current_app
from sqlalchemy.orm import Session, aliased

from microblog.extensions import db
from microblog.monitoring.models import RollUp, TaskHour, TaskTotal
from microblog.monitoring.rollup import (
    FINISHED,
    AggregateKey,
    DurationHistogram,
    TaskAggregate,
    aggregate_tasks,
    hour_of,
)
from microblog.taskqueue import states
from microblog.taskqueue.models import Task

__all__ = ["FailureGroup", "Hour", "Outcomes", "Times", "by_hour", "by_task", "group_failures", "snapshot", "totals"]

_K = TypeVar("_K")


@dataclass(frozen=True)
class Times:
    """Durations in seconds; percentiles within 4.5 %. None if there are none."""

    count: int
    mean: float | None
    p50: float | None
    p95: float | None
    p99: float | None

    @classmethod
    def of(cls, sketch: DurationHistogram) -> Times:
        """The times that were counted."""
        p50, p95, p99 = (sketch.percentile(share) for share in (0.5, 0.95, 0.99))
        return cls(sketch.count, sketch.mean, p50, p95, p99)


@dataclass(frozen=True)
class Outcomes:
    """Outcomes of the tasks called `name`: `counts` has each of SUCCESS, FAILURE and REVOKED.

    See rollup.TaskAggregate for what is a wait, a run and a crash.
    """

    name: str
    counts: dict[str, int]
    attempts: int
    crashes: int
    wait: Times
    run: Times

    @property
    def finished(self) -> int:
        """The number of finished tasks."""
        return sum(self.counts.values())

    @property
    def failure_rate(self) -> float | None:
        """Failures among those that were not cancelled, 0 to 1; None if all were."""
        ended = self.counts[states.SUCCESS] + self.counts[states.FAILURE]
        return self.counts[states.FAILURE] / ended if ended else None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"finished": self.finished, "failure_rate": self.failure_rate}


@dataclass(frozen=True)
class Hour(Outcomes):
    """Outcomes of the tasks called `name` that finished within the hour that began at `hour`."""

    hour: datetime


def by_hour(since: datetime, until: datetime, name: str | None = None) -> list[Hour]:
    """The hours from the one that `since` lies in up to `until`, oldest first, each with its task names in order.

    An hour in which no task of a name ended is left out. With `name`, only that task's. Needs no Redis. Raises
    DatabaseUnavailable.
    """
    grouped: defaultdict[tuple[datetime, str], dict[str, TaskAggregate]] = defaultdict(dict)
    for key, figures in _between(since, until, name).items():
        grouped[key.hour, key.name][key.state] = figures
    return [Hour(hour=hour, **_outcomes(task, by_state)) for (hour, task), by_state in sorted(grouped.items())]


def by_task(since: datetime, until: datetime, name: str | None = None) -> list[Outcomes]:
    """All the hours of by_hour() together, a line for each task name, in order."""
    grouped: defaultdict[str, dict[str, TaskAggregate]] = defaultdict(dict)
    for key, figures in _between(since, until, name).items():
        grouped[key.name].setdefault(key.state, TaskAggregate()).add(figures)
    return [Outcomes(**_outcomes(task, by_state)) for task, by_state in sorted(grouped.items())]


def totals(session: Session) -> dict[tuple[str, str], TaskAggregate]:
    """All tasks that ever ended, by name and state: figures that only grow, whatever becomes of the rows.

    `session` is a snapshot(). Raises DatabaseUnavailable.
    """
    figures = {(row.name, row.state): TaskAggregate.of(row) for row in session.scalars(sa.select(TaskTotal))}
    _add_to(figures, ((key[1:], counted) for key, counted in _live(session).items()))
    return figures


def _between(since: datetime, until: datetime, name: str | None) -> dict[AggregateKey, TaskAggregate]:
    since = hour_of(since)
    with snapshot() as session:
        stored = session.scalars(sa.select(TaskHour).where(TaskHour.hour >= since, TaskHour.hour < until))
        figures = {AggregateKey(row.hour, row.name, row.state): TaskAggregate.of(row) for row in stored}
        _add_to(figures, _live(session, Task.finished_at >= since, Task.finished_at < until).items())
    return {key: counted for key, counted in figures.items() if counted.count and name in (None, key.name)}


@contextmanager
def snapshot() -> Iterator[Session]:
    """A session that sees the database as it is at one instant: a roll-up meanwhile changes nothing in it."""
    with db.engine.connect() as connection:
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN")  # which its driver leaves out before a SELECT
        else:
            connection = connection.execution_options(isolation_level="REPEATABLE READ")
        with Session(connection) as session:
            yield session


def _live(session: Session, *within: sa.ColumnElement[bool]) -> Mapping[AggregateKey, TaskAggregate]:
    """Return the tasks that are not aggregated yet."""
    until = session.scalars(sa.select(RollUp.until)).one()
    rows = session.execute(FINISHED.where(Task.finished_at > until, *within).execution_options(yield_per=1000))
    return aggregate_tasks(rows, max_crashes=current_app.config["TASK_MAX_CRASHES"])


def _add_to(figures: dict[_K, TaskAggregate], more: Iterable[tuple[_K, TaskAggregate]]) -> None:
    for key, counted in more:
        figures.setdefault(key, TaskAggregate()).add(counted)


def _outcomes(name: str, by_state: dict[str, TaskAggregate]) -> dict[str, Any]:
    whole = TaskAggregate()
    for figures in by_state.values():
        whole.add(figures)
    return {
        "name": name,
        "counts": {state: by_state[state].count if state in by_state else 0 for state in states.FINISHED},
        "attempts": whole.attempts,
        "crashes": whole.crashes,
        "wait": Times.of(whole.wait),
        "run": Times.of(whole.run),
    }


LONGEST_TEXT = 200  # characters; what comes after them seldom tells two causes apart
_LAST_FRAME = re.compile(r'.*^  File "', re.S | re.M)
_EXCEPTION = re.compile(r"^(?P<kind>[A-Za-z_][\w.]*)(?:: (?P<text>.*))?$", re.M)
# What differs from one failure to the next of the same cause, and what is written in its place.
_VARYING = (
    (re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", re.I), "<id>"),
    (re.compile(r"[^\s<>\"'@]+@[^\s<>\"'@]+"), "<address>"),
    (re.compile(r"(?<!\w)(?P<quote>['\"]).*?(?P=quote)(?!\w)"), "<text>"),
    (re.compile(r"\b(?:0x[0-9a-f]+|(?=[a-f]*[0-9])[0-9a-f]{8,})\b", re.I), "<hex>"),
    (re.compile(r"(?<![A-Za-z_])\d+(?:[.,:]\d+)*"), "N"),
    (re.compile(r"\s+"), " "),
)


@dataclass(frozen=True)
class FailureGroup:
    """Failures of one task that differ in names and numbers alone.

    `kind` is the exception's class, empty if none was raised; `text` what was said, with ``N``, ``<id>`` and the like
    for what varies; `first` and `last` when it was met; `example` the id of the latest job that met it.
    """

    name: str
    kind: str
    text: str
    count: int
    first: datetime
    last: datetime
    example: str

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dict(vars(self))


class _FailedTask(NamedTuple):
    name: str
    error: str | None
    traceback: str | None
    finished_at: datetime
    root_id: str


def group_failures(since: datetime, name: str | None = None) -> list[FailureGroup]:
    """Why tasks (or those called `name`) failed since `since`, the most frequent cause first.

    A step that failed only because the one before it did is left out. Reads the rows, which are kept for a while
    only; needs no Redis. Raises DatabaseUnavailable.
    """
    causes: dict[tuple[str, str, str], FailureGroup] = {}
    before = aliased(Task)
    taken_along = sa.exists().where(
        before.root_id == Task.root_id, before.position < Task.position, before.state == states.FAILURE
    )
    failed = (
        sa.select(Task.name, Task.error, Task.traceback, Task.finished_at, Task.root_id)
        .where(Task.finished_at >= since, Task.state == states.FAILURE, ~taken_along)
        .order_by(Task.finished_at)
    )
    if name is not None:
        failed = failed.where(Task.name == name)
    for row in db.session.execute(failed.execution_options(yield_per=1000)):
        failure = _FailedTask._make(row)
        key = (failure.name, *failure_group_of(failure.error, failure.traceback))
        known = causes.get(key)
        first, times = (known.first, known.count) if known else (failure.finished_at, 0)
        causes[key] = FailureGroup(*key, times + 1, first, failure.finished_at, failure.root_id)
    return sorted(causes.values(), key=lambda cause: (-cause.count, -cause.last.timestamp()))


def failure_group_of(error: str | None, traceback: str | None) -> tuple[str, str]:
    """The class of the exception that a task failed with, and what it said, without what varies."""
    raised = _EXCEPTION.search(traceback, _end_of_frames(traceback)) if traceback else None
    if raised is None:
        return "", normalise(error or "")
    return raised["kind"].rpartition(".")[2], normalise(raised["text"] or "")


def normalise(text: str) -> str:
    """`text` with a word in place of each number, id, address or quotation, on one line that is not too long."""
    for pattern, replacement in _VARYING:
        text = pattern.sub(replacement, text)
    return text.strip()[:LONGEST_TEXT]


def _end_of_frames(traceback: str) -> int:
    frames = _LAST_FRAME.match(traceback)
    return traceback.index("\n", frames.end()) + 1 if frames and "\n" in traceback[frames.end() :] else 0
