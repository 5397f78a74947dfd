"""Tables of aggregated outcomes: by hour for charts, in total for counters."""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from microblog.extensions import Model

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _Sums:
    """The columns of rollup.TaskAggregate. `…_buckets` map a histogram bucket to its number of durations."""

    name: Mapped[str] = mapped_column(sa.String(128), primary_key=True)
    state: Mapped[str] = mapped_column(sa.String(16), primary_key=True)
    count: Mapped[int] = mapped_column(default=0)
    jobs: Mapped[int] = mapped_column(default=0)
    attempts: Mapped[int] = mapped_column(default=0)
    crashes: Mapped[int] = mapped_column(default=0)
    given_up: Mapped[int] = mapped_column(default=0)
    wait_seconds: Mapped[float] = mapped_column(sa.Float, default=0.0)
    wait_buckets: Mapped[dict[str, int]] = mapped_column("wait_sketch", sa.JSON, default=dict)
    run_seconds: Mapped[float] = mapped_column(sa.Float, default=0.0)
    run_buckets: Mapped[dict[str, int]] = mapped_column("run_sketch", sa.JSON, default=dict)


class TaskHour(_Sums, Model):
    """Sums over the tasks of one name that ended in one state within the hour that begins at `hour`."""

    __tablename__ = "task_hour"

    hour: Mapped[datetime] = mapped_column(primary_key=True, sort_order=-1)

    def __repr__(self) -> str:
        return f"<TaskHour {self.hour:%Y-%m-%d %H} {self.name} {self.state} {self.count}>"


class TaskTotal(_Sums, Model):
    """Sums over all tasks of one name that ended in one state. A scrape reads them, whatever the number of hours."""

    __tablename__ = "task_total"

    def __repr__(self) -> str:
        return f"<TaskTotal {self.name} {self.state} {self.count}>"


class RollUp(Model):
    """The time up to which tasks are aggregated: a single row, which an aggregating process locks first."""

    __tablename__ = "task_roll_up"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    runs: Mapped[int] = mapped_column(sa.BigInteger, default=0)
    until: Mapped[datetime] = mapped_column(default=EPOCH)  # tasks that finished up to then are included
    settled_until: Mapped[datetime] = mapped_column(default=EPOCH)  # up to then also those written late: see rollup.py

    def __repr__(self) -> str:
        return f"<RollUp until {self.until}>"
