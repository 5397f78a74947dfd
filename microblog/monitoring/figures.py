"""What is counted of finished tasks, and how it is read from their rows and added up."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.orm import aliased

from microblog.monitoring.models import TaskHour, TaskTotal
from microblog.monitoring.sketch import Sketch
from microblog.taskqueue.models import Task


class Key(NamedTuple):
    """Which tasks are counted together."""

    hour: datetime
    name: str
    state: str


@dataclass
class Figures:
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
    wait: Sketch = field(default_factory=Sketch)
    run: Sketch = field(default_factory=Sketch)

    @classmethod
    def of(cls, row: TaskHour | TaskTotal) -> Figures:
        """What was stored."""
        return cls(
            row.count,
            row.jobs,
            row.attempts,
            row.crashes,
            row.given_up,
            Sketch.from_json(row.wait_seconds, row.wait_sketch),
            Sketch.from_json(row.run_seconds, row.run_sketch),
        )

    def columns(self) -> dict[str, Any]:
        """What to store."""
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

    def add(self, other: Figures, times: int = 1) -> None:
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


def count(rows: Iterable[Any], *, max_crashes: int) -> dict[Key, Figures]:
    """Add up the rows that FINISHED selects; with `max_crashes` workers dead under it a task was given up."""
    counted: defaultdict[Key, Figures] = defaultdict(Figures)
    for name, state, attempts, crashes, ready_at, started_at, finished_at, job, ends_job in rows:
        hour = hour_of(finished_at)
        figures = counted[Key(hour, name, state)]
        figures.count += 1
        figures.attempts += attempts
        figures.crashes += crashes
        figures.given_up += crashes >= max_crashes
        if started_at is not None:
            figures.wait.observe((started_at - ready_at).total_seconds())
            figures.run.observe((finished_at - started_at).total_seconds())
        if ends_job:
            counted[Key(hour, job, state)].jobs += 1
    return counted


def hour_of(time: datetime) -> datetime:
    """When the hour that `time` lies in began."""
    return time.replace(minute=0, second=0, microsecond=0)
