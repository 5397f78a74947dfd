"""/metrics with 1,000,000 rows ÷ with 10,000 rows, and the cost of the roll-up.

Only the history differs: both have 500 unfinished tasks, and 200 that have finished since the last roll-up.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from flask import Flask

from bench.figures import Figure, compare, side_by_side, state
from bench.servers import OURS, Servers
from microblog.clock import utcnow
from microblog.extensions import db
from microblog.monitoring import statistics
from microblog.monitoring.rollup import roll_up
from microblog.taskqueue import states
from microblog.taskqueue.models import Task

FEW, MANY = 10_000, 1_000_000  # rows
UNFINISHED = 500
SINCE_ROLL_UP = 200
ROUNDS = 31
BATCH = 10_000
MONTH, WEEK = timedelta(days=30), timedelta(days=7)


def run(servers: Servers) -> Iterator[Figure]:
    """Yield the figures of each database."""
    for database in servers.databases:
        environments = [servers.environment(database) for _ in range(2)]
        with servers.app(environments[0]) as few, servers.app(environments[1]) as many:
            for app, rows in ((few, FEW), (many, MANY)):
                with app.app_context():
                    yield _fill(rows, database)
            with servers.worker(environments[1], OURS, queue="default"):
                ours, raw = side_by_side(lambda: _scrape(many), lambda: _scrape(few), rounds=ROUNDS)
            yield compare(f"/metrics, {database}: {MANY:,} ÷ {FEW:,} rows", ours, raw, "ms", at_most=2)
            for what, ask in (("a week by the hour", _week), ("a roll-up with nothing to do", roll_up)):
                spent = _median(many, ask)
                yield state(f"statistics: {what}, {database}, {MANY:,} rows", spent, "ms")


def _fill(rows: int, database: str) -> Figure:
    """Add `rows` finished rows of a month, and measure their roll-up; then add newer finished and unfinished rows."""
    now = utcnow()
    for first in range(0, rows, BATCH):
        ended = [now - MONTH * (1 - number / rows) - timedelta(minutes=5) for number in range(first, first + BATCH)]
        db.session.execute(sa.insert(Task), [_row(at, number) for number, at in enumerate(ended)])
        db.session.commit()
    with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("ANALYZE" if db.engine.dialect.name == "sqlite" else "VACUUM ANALYZE"))
    began = time.perf_counter()
    added = roll_up()
    spent = time.perf_counter() - began
    db.session.execute(sa.insert(Task), [_row(now, number) for number in range(SINCE_ROLL_UP)])
    db.session.execute(sa.insert(Task), [_row(None, number) for number in range(UNFINISHED)])
    db.session.commit()
    return state(f"statistics: roll up {added:,} rows at once, {database}, for each row", spent / added * 1e6, "µs")


def _row(ended: datetime | None, number: int) -> dict[str, Any]:
    task_id = str(uuid.uuid4())
    at = ended or utcnow()
    return {
        "id": task_id,
        "root_id": task_id,
        "position": 0,
        "name": ("export_posts", "email_export", "noop")[number % 3],
        "queue": "default",
        "state": (states.SUCCESS if number % 20 else states.FAILURE) if ended else states.PENDING,
        "signature": {"task": "noop", "args": [], "kwargs": {}, "options": {"task_id": task_id}},
        "attempts": 1,
        "created_at": at - timedelta(seconds=1 + number % 60),
        "started_at": at - timedelta(seconds=(number % 600) / 10) if ended else None,
        "finished_at": ended,
    }


def _scrape(app: Flask) -> float:
    """Return the milliseconds of one scrape."""
    with app.app_context():
        began = time.perf_counter()
        app.extensions["metrics"].expose("")
        return (time.perf_counter() - began) * 1000


def _week() -> object:
    return statistics.by_hour(utcnow() - WEEK, utcnow())


def _median(app: Flask, ask: Callable[[], object]) -> float:
    """Return the median milliseconds of five calls."""
    spent = []
    with app.app_context():
        for _round in range(5):
            began = time.perf_counter()
            ask()
            spent.append((time.perf_counter() - began) * 1000)
    return sorted(spent)[2]
