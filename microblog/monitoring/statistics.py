"""Statistics of tasks by hour and in total; a snapshot of unfinished tasks; failures grouped by cause."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from microblog.database import database_time
from microblog.extensions import db
from microblog.monitoring.models import RollUp, TaskHour, TaskTotal
from microblog.monitoring.rollup import AggregateKey, DurationHistogram, TaskAggregate, aggregate_tasks, hour_of
from microblog.taskqueue import states
from microblog.taskqueue.models import Task

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
    def of(cls, histogram: DurationHistogram) -> Times:
        """Return the times in a histogram."""
        p50, p95, p99 = (histogram.percentile(share) for share in (0.5, 0.95, 0.99))
        return cls(histogram.count, histogram.mean, p50, p95, p99)


@dataclass(frozen=True)
class Outcomes:
    """Outcomes of the tasks called `name`: `counts` has each of SUCCESS, FAILURE and REVOKED.

    See rollup.TaskAggregate for the meaning of `crashes`, `wait` and `run`.
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
        """Fraction of failures among the tasks that were not cancelled, 0 to 1; None if all were cancelled."""
        ended = self.counts[states.SUCCESS] + self.counts[states.FAILURE]
        return self.counts[states.FAILURE] / ended if ended else None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return asdict(self) | {"finished": self.finished, "failure_rate": self.failure_rate}


@dataclass(frozen=True)
class Hour(Outcomes):
    """Outcomes of the tasks called `name` that finished within the hour that began at `hour`."""

    hour: datetime


def by_hour(since: datetime, until: datetime, name: str | None = None) -> list[Hour]:
    """Return the outcomes of each hour, from the one that contains `since` up to `until`, sorted by hour and task name.

    Hours in which no task of a name ended are omitted. With `name`, only tasks of that name are included. Does not need
    Redis. Raises DatabaseUnavailable.
    """
    grouped: defaultdict[tuple[datetime, str], dict[str, TaskAggregate]] = defaultdict(dict)
    for key, aggregate in _between(since, until, name).items():
        grouped[key.hour, key.name][key.state] = aggregate
    return [Hour(hour=hour, **_outcomes(task, by_state)) for (hour, task), by_state in sorted(grouped.items())]


def by_task(since: datetime, until: datetime, name: str | None = None) -> list[Outcomes]:
    """Return the outcomes of by_hour() summed over all hours, sorted by task name."""
    grouped: defaultdict[str, dict[str, TaskAggregate]] = defaultdict(dict)
    for key, aggregate in _between(since, until, name).items():
        grouped[key.name].setdefault(key.state, TaskAggregate()).add(aggregate)
    return [Outcomes(**_outcomes(task, by_state)) for task, by_state in sorted(grouped.items())]


def totals(session: Session) -> dict[tuple[str, str], TaskAggregate]:
    """Return the aggregates of all tasks that ended, by name and state; they never decrease, even if rows are deleted.

    `session` is a snapshot(). Raises DatabaseUnavailable.
    """
    aggregates = {(row.name, row.state): TaskAggregate.of(row) for row in session.scalars(sa.select(TaskTotal))}
    _add_to(aggregates, ((key[1:], aggregate) for key, aggregate in _live(session).items()))
    return aggregates


def _between(since: datetime, until: datetime, name: str | None) -> dict[AggregateKey, TaskAggregate]:
    since = hour_of(since)
    with snapshot() as session:
        stored = session.scalars(sa.select(TaskHour).where(TaskHour.hour >= since, TaskHour.hour < until))
        aggregates = {AggregateKey(row.hour, row.name, row.state): TaskAggregate.of(row) for row in stored}
        _add_to(aggregates, _live(session, Task.finished_at >= since, Task.finished_at < until).items())
    return {key: aggregate for key, aggregate in aggregates.items() if aggregate.count and name in (None, key.name)}


@contextmanager
def snapshot() -> Iterator[Session]:
    """Open a session that sees the database at one instant, so that a concurrent roll-up has no effect on it.

    The caller's session is rolled back: it returns its connection, of which there may be only one.
    """
    db.session.rollback()
    with db.engine.connect() as connection:
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN")  # the driver omits it before a SELECT
        else:
            connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        with Session(connection) as session:
            yield session


def _live(session: Session, *within: sa.ColumnElement[bool]) -> Mapping[AggregateKey, TaskAggregate]:
    """Return the aggregates of the tasks that are not rolled up yet."""
    until = session.scalars(sa.select(RollUp.until)).one()
    return aggregate_tasks(session, Task.finished_at > until, *within)


def _add_to(aggregates: dict[_K, TaskAggregate], more: Iterable[tuple[_K, TaskAggregate]]) -> None:
    for key, aggregate in more:
        aggregates.setdefault(key, TaskAggregate()).add(aggregate)


def _outcomes(name: str, by_state: dict[str, TaskAggregate]) -> dict[str, Any]:
    total = TaskAggregate()
    for aggregate in by_state.values():
        total.add(aggregate)
    return {
        "name": name,
        "counts": {state: by_state[state].count if state in by_state else 0 for state in states.FINISHED},
        "attempts": total.attempts,
        "crashes": total.crashes,
        "wait": Times.of(total.wait),
        "run": Times.of(total.run),
    }


@dataclass(frozen=True)
class UnfinishedTasks:
    """Sums over unfinished tasks of one name and state; `started` counts those that were claimed at least once."""

    count: int
    started: int
    attempts: int
    crashes: int


@dataclass(frozen=True)
class UnfinishedJobs:
    """The number of unfinished jobs with the same first task, and when the oldest was launched."""

    count: int
    oldest: datetime


@dataclass(frozen=True)
class TaskTableSnapshot:
    """The Task table at one instant, `at`.

    `finished` and `unfinished` are by name and state of the task, `jobs` by the name of a job's first task.
    `rolled_up_until` is the time up to which finished tasks were aggregated; later ones were counted from their rows.
    """

    at: datetime
    finished: dict[tuple[str, str], TaskAggregate]
    unfinished: dict[tuple[str, str], UnfinishedTasks]
    jobs: dict[str, UnfinishedJobs]
    rolled_up_until: datetime


def take_snapshot() -> TaskTableSnapshot:
    """Return the current snapshot. Its cost grows with the number of unfinished tasks. Raises DatabaseUnavailable."""
    with snapshot() as session:
        return TaskTableSnapshot(
            at=database_time(session),
            finished=totals(session),
            unfinished=_unfinished_tasks(session),
            jobs=_unfinished_jobs(session),
            rolled_up_until=session.scalars(sa.select(RollUp.until)).one(),
        )


def _unfinished_tasks(session: Session) -> dict[tuple[str, str], UnfinishedTasks]:
    sums = (sa.func.count(), sa.func.count(Task.started_at), sa.func.sum(Task.attempts), sa.func.sum(Task.crashes))
    rows = session.execute(
        sa.select(Task.name, Task.state, *sums).where(Task.unfinished).group_by(Task.name, Task.state)
    )
    return {(name, state): UnfinishedTasks(*counted) for name, state, *counted in rows}


def _unfinished_jobs(session: Session) -> dict[str, UnfinishedJobs]:
    root = aliased(Task)
    rows = session.execute(
        sa.select(root.name, sa.func.count(Task.root_id.distinct()), sa.func.min(Task.created_at))
        .join(root, root.id == Task.root_id)
        .where(Task.unfinished)
        .group_by(root.name)
    )
    return {name: UnfinishedJobs(count, oldest) for name, count, oldest in rows}


MAX_TEXT_LENGTH = 200  # characters; the text after them rarely distinguishes two causes
_LAST_FRAME = re.compile(r'.*^  File "', re.S | re.M)
_EXCEPTION = re.compile(r"^(?P<kind>[A-Za-z_][\w.]*)(?:: (?P<text>.*))?$", re.M)
# Patterns of the text that varies between failures of the same cause, with their placeholders.
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
    """Failures of one task that differ only in names and numbers.

    `kind` is the class of the exception, empty if none was raised or it was a UserError; `text` is its message, with
    ``N``, ``<id>`` and similar placeholders; `first` and `last` are the times of the first and the last failure;
    `example` is the id of the latest job that failed.
    """

    name: str
    kind: str
    text: str
    count: int
    first: datetime
    last: datetime
    example: str


class _FailedTask(NamedTuple):
    name: str
    error: str | None
    traceback: str | None
    finished_at: datetime
    root_id: str


def group_failures(since: datetime, name: str | None = None) -> list[FailureGroup]:
    """Return the groups of failures since `since`, of all tasks or those called `name`, the most frequent first.

    Steps that failed only because the previous one did are omitted. Reads the rows, which are deleted after a while;
    does not need Redis. Raises DatabaseUnavailable.
    """
    groups: dict[tuple[str, str, str], FailureGroup] = {}
    previous = aliased(Task)
    after_failure = sa.exists().where(
        previous.root_id == Task.root_id, previous.position < Task.position, previous.state == states.FAILURE
    )
    failed = (
        sa.select(Task.name, Task.error, Task.traceback, Task.finished_at, Task.root_id)
        .where(Task.finished_at >= since, Task.state == states.FAILURE, ~after_failure)
        .order_by(Task.finished_at)
    )
    if name is not None:
        failed = failed.where(Task.name == name)
    for row in db.session.execute(failed.execution_options(yield_per=1000)):
        failure = _FailedTask._make(row)
        key = (failure.name, *failure_group_of(failure.error, failure.traceback))
        group = groups.get(key)
        first, count = (group.first, group.count) if group else (failure.finished_at, 0)
        groups[key] = FailureGroup(*key, count + 1, first, failure.finished_at, failure.root_id)
    return sorted(groups.values(), key=lambda group: (-group.count, -group.last.timestamp()))


def failure_group_of(error: str | None, traceback: str | None) -> tuple[str, str]:
    """Return the class and the normalised message of the exception with which a task failed."""
    raised = _EXCEPTION.search(traceback, _end_of_frames(traceback)) if traceback else None
    if raised is None:
        return "", normalise(error or "")
    return raised["kind"].rpartition(".")[2], normalise(raised["text"] or "")


def normalise(text: str) -> str:
    """Return `text` on one line of limited length, with placeholders for numbers, ids, addresses and quotations."""
    for pattern, replacement in _VARYING:
        text = pattern.sub(replacement, text)
    return text.strip()[:MAX_TEXT_LENGTH]


def _end_of_frames(traceback: str) -> int:
    frames = _LAST_FRAME.match(traceback)
    return traceback.index("\n", frames.end()) + 1 if frames and "\n" in traceback[frames.end() :] else 0
