"""What became of tasks, by the hour and in all: from the sums of roll_up.py, and live from rows newer than those."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, TypeVar

import sqlalchemy as sa
from flask import current_app
from sqlalchemy.orm import Session

from microblog.extensions import db
from microblog.monitoring.causes import Cause, failures
from microblog.monitoring.figures import FINISHED, Figures, Key, count, hour_of
from microblog.monitoring.models import RollUp, TaskHour, TaskTotal
from microblog.monitoring.sketch import Sketch
from microblog.taskqueue import states
from microblog.taskqueue.models import Task

__all__ = ["Cause", "Hour", "Outcomes", "Times", "by_hour", "by_task", "failures", "snapshot", "totals"]

_K = TypeVar("_K")


@dataclass(frozen=True)
class Times:
    """How long something took, in seconds; percentiles within 4.5 %. None where there is nothing to tell of."""

    count: int
    mean: float | None
    p50: float | None
    p95: float | None
    p99: float | None

    @classmethod
    def of(cls, sketch: Sketch) -> Times:
        """The times that were counted."""
        p50, p95, p99 = (sketch.percentile(share) for share in (0.5, 0.95, 0.99))
        return cls(sketch.count, sketch.mean, p50, p95, p99)


@dataclass(frozen=True)
class Outcomes:
    """What became of the tasks called `name`: `counts` has each of SUCCESS, FAILURE and REVOKED.

    See figures.Figures for what is a wait, a run and a crash.
    """

    name: str
    counts: dict[str, int]
    attempts: int
    crashes: int
    wait: Times
    run: Times

    @property
    def finished(self) -> int:
        """How many there were."""
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
    """What became of the tasks called `name` that finished within the hour that began at `hour`."""

    hour: datetime


def by_hour(since: datetime, until: datetime, name: str | None = None) -> list[Hour]:
    """The hours from the one that `since` lies in up to `until`, oldest first, each with its task names in order.

    An hour in which no task of a name ended is left out. With `name`, only that task's. Needs no Redis. Raises
    sqlalchemy.exc.DBAPIError.
    """
    grouped: defaultdict[tuple[datetime, str], dict[str, Figures]] = defaultdict(dict)
    for key, figures in _between(since, until, name).items():
        grouped[key.hour, key.name][key.state] = figures
    return [Hour(hour=hour, **_outcomes(task, by_state)) for (hour, task), by_state in sorted(grouped.items())]


def by_task(since: datetime, until: datetime, name: str | None = None) -> list[Outcomes]:
    """All the hours of by_hour() together, a line for each task name, in order."""
    grouped: defaultdict[str, dict[str, Figures]] = defaultdict(dict)
    for key, figures in _between(since, until, name).items():
        grouped[key.name].setdefault(key.state, Figures()).add(figures)
    return [Outcomes(**_outcomes(task, by_state)) for task, by_state in sorted(grouped.items())]


def totals(session: Session) -> dict[tuple[str, str], Figures]:
    """All tasks that ever ended, by name and state: figures that only grow, whatever becomes of the rows.

    `session` is a snapshot(). Raises sqlalchemy.exc.DBAPIError.
    """
    figures = {(row.name, row.state): Figures.of(row) for row in session.scalars(sa.select(TaskTotal))}
    _add_to(figures, ((key[1:], counted) for key, counted in _live(session).items()))
    return figures


def _between(since: datetime, until: datetime, name: str | None) -> dict[Key, Figures]:
    since = hour_of(since)
    with snapshot() as session:
        stored = session.scalars(sa.select(TaskHour).where(TaskHour.hour >= since, TaskHour.hour < until))
        figures = {Key(row.hour, row.name, row.state): Figures.of(row) for row in stored}
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


def _live(session: Session, *within: sa.ColumnElement[bool]) -> Mapping[Key, Figures]:
    """What is in no sum yet."""
    until = session.scalars(sa.select(RollUp.until)).one()
    rows = session.execute(FINISHED.where(Task.finished_at > until, *within).execution_options(yield_per=1000))
    return count(rows, max_crashes=current_app.config["TASK_MAX_CRASHES"])


def _add_to(figures: dict[_K, Figures], more: Iterable[tuple[_K, Figures]]) -> None:
    for key, counted in more:
        figures.setdefault(key, Figures()).add(counted)


def _outcomes(name: str, by_state: dict[str, Figures]) -> dict[str, Any]:
    whole = Figures()
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
