"""launch() of a job of two steps, with its commit ÷ apply_async() of a bare chain of two tasks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice

from celery import Celery, chain

from bench.bare import make_bare
from bench.figures import Figure, compare, side_by_side
from bench.house import House, add_users
from microblog.accounts.models import User
from microblog.exports.tasks import email_export, export_posts
from microblog.extensions import db
from microblog.taskqueue.launch import launch

LAUNCHES = 100  # in one turn
ROUNDS = 9


def run(house: House) -> Iterator[Figure]:
    """One figure for each database."""
    for database in house.databases:
        with house.app(house.environment(database)) as app:
            users = iter(add_users(LAUNCHES * (ROUNDS + 1)))
            bare = make_bare(app.config)
            _launch(users), _launch_bare(bare)  # the first turn connects
            ours, raw = side_by_side(lambda: _launch(users), lambda: _launch_bare(bare), rounds=ROUNDS)  # noqa: B023
        yield compare(
            f"launch() of two steps, {database} ÷ bare chain().apply_async()",
            ours * 1000,
            raw * 1000,
            "ms",
            at_most=3,
        )


def _launch(users: Iterator[int]) -> float:
    """Seconds for one launch. Each is by another user, who may have only one such job, in the midst of a session."""
    spent = 0.0
    for user_id in islice(users, LAUNCHES):
        db.session.get_one(User, user_id)
        began = time.perf_counter()
        launch([export_posts.s(user_id), email_export.s()], user_id=user_id)
        db.session.commit()
        spent += time.perf_counter() - began
        db.session.remove()
    return spent / LAUNCHES


def _launch_bare(bare: Celery) -> float:
    step = bare.tasks["bare_noop"]
    spent = 0.0
    for argument in range(LAUNCHES):
        began = time.perf_counter()
        chain(step.s(argument), step.s()).apply_async()
        spent += time.perf_counter() - began
    return spent / LAUNCHES
