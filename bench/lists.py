"""A page of `flask tasks list` with 1,000,000 rows ÷ the same with 10,000 rows, for each filter and each order.

Only the history differs: both have 500 unfinished jobs.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import sqlalchemy as sa
from flask import Flask

from bench.figures import Figure, compare, side_by_side
from bench.servers import Servers, add_users
from microblog.clock import utcnow
from microblog.extensions import db
from microblog.monitoring.filters import Filters, Order
from microblog.monitoring.job_queries import JobPage, find_jobs
from microblog.pagination import PageRequest, time_key
from microblog.taskqueue import states
from microblog.taskqueue.models import Task

FEW, MANY = 10_000, 1_000_000  # rows
UNFINISHED = 500  # jobs
USERS = 1000
PAGE = 50
ACTIVE = 50  # users with finished jobs; few, so that each has a page of jobs at both sizes
ROUNDS = 31
STEPS = (("export_posts", "exports"), ("email_export", "mail"))
WORKERS = [f"worker{number}@host" for number in range(8)]
YEAR = timedelta(days=365)
TRACEBACK = "Traceback (most recent call last):\n" + '  File "work.py", line 7, in work\n' * 30 + "OSError: refused"

Ask = Callable[[], JobPage]


def run(servers: Servers) -> Iterator[Figure]:
    """Yield one figure for each filter on each database."""
    for database in servers.databases:
        with (
            servers.app(servers.environment(database)) as few,
            servers.app(servers.environment(database)) as many,
        ):
            newest = utcnow()
            for app, rows in ((few, FEW), (many, MANY)):
                with app.app_context():
                    _fill(rows, newest)
            for what, ask in _questions(newest):
                ours, raw = side_by_side(
                    partial(_milliseconds, many, ask), partial(_milliseconds, few, ask), rounds=ROUNDS
                )
                what = f"list {what}, {database}: {MANY:,} ÷ {FEW:,} rows"
                yield compare(what, ours, raw, "ms", at_most=2)


def _questions(newest: datetime) -> Iterator[tuple[str, Ask]]:
    filters = {
        "": Filters(),
        **{f"--state {state}": Filters(states=frozenset({state})) for state in states.ALL},
        "--user": Filters(user_id=7),
        "--name export_posts": Filters(name="export_posts"),
        "--name email_export": Filters(name="email_export"),
        "--name (none has it)": Filters(name="unheard-of"),
        "--queue mail": Filters(queue="mail"),
        "--queue (none has it)": Filters(queue="unheard-of"),
        "--worker": Filters(worker=WORKERS[3]),
        "--worker (none has it)": Filters(worker="unheard-of"),
        "--older-than": Filters(created_before=newest - YEAR / 2),
        "--newer-than": Filters(created_after=newest - YEAR / 2),
        "--error": Filters(error="OSError"),
        "--error (none has it)": Filters(error="unheard-of"),
    }
    for what, given in filters.items():
        yield what, partial(find_jobs, given, PageRequest(size=PAGE))
    for order in (Order.OLDEST, Order.ENDED):
        yield f"--sort {order}", partial(find_jobs, Filters(), PageRequest(size=PAGE), order)
    middle = time_key(newest - YEAR / 2, "0")
    yield "--after (half of all)", partial(find_jobs, Filters(), PageRequest(after=middle, size=PAGE))
    yield "--before (half of all)", partial(find_jobs, Filters(), PageRequest(before=middle, size=PAGE))


def _milliseconds(app: Flask, ask: Ask) -> float:
    with app.app_context():
        began = time.perf_counter()
        ask()
        return (time.perf_counter() - began) * 1000


def _fill(rows: int, newest: datetime) -> None:
    """Add `rows` rows: exports of a year, the newest of them unfinished; then update the statistics of the planner."""
    users = add_users(USERS)
    history = _history(rows // len(STEPS), users, newest, random.Random(2026))
    while batch := [row for _job, steps in zip(range(5000), history, strict=False) for row in steps]:
        db.session.execute(sa.insert(Task), batch)
        db.session.commit()
    with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("ANALYZE" if db.engine.dialect.name == "sqlite" else "VACUUM ANALYZE"))


def _history(count: int, users: list[int], newest: datetime, rng: random.Random) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of `count` jobs, oldest first."""
    unfinished = iter(users)  # each may have only one
    for number in range(count):
        age = YEAR * (count - number) / count
        if number >= count - UNFINISHED:
            state, reached = rng.choice(states.UNFINISHED), rng.randrange(2)
            yield _job(next(unfinished), newest - age, state, reached, rng)
        else:
            state, reached = rng.choices(
                [(states.SUCCESS, 1), (states.FAILURE, 0), (states.FAILURE, 1), (states.REVOKED, 0)], [88, 4, 5, 3]
            )[0]
            yield _job(rng.choice(users[:ACTIVE]), newest - age, state, reached, rng)


def _job(user_id: int, created_at: datetime, state: str, reached: int, rng: random.Random) -> list[dict[str, Any]]:
    root_id = str(uuid.UUID(int=rng.getrandbits(128), version=4))
    rows = []
    for position, (name, queue) in enumerate(STEPS):
        here = states.SUCCESS if position < reached else state
        if position > reached and state in states.UNFINISHED:
            here = states.PENDING
        ran = position <= reached and here != states.PENDING
        rows.append(
            {
                "id": root_id if position == 0 else str(uuid.UUID(int=rng.getrandbits(128), version=4)),
                "root_id": root_id,
                "position": position,
                "user_id": user_id,
                "name": name,
                "description": "Exporting your posts",
                "state": here,
                "queue": queue,
                "worker": rng.choice(WORKERS) if ran else None,
                "attempts": int(ran),
                "signature": {"task": name, "args": [user_id], "kwargs": {}, "options": {"task_id": root_id}},
                "error": "Something went wrong on our side." if here == states.FAILURE else None,
                "traceback": TRACEBACK if here == states.FAILURE and position == reached else None,
                "created_at": created_at,
                "updated_at": created_at,
                "finished_at": created_at + timedelta(seconds=9) if here in states.FINISHED else None,
            }
        )
    return rows
