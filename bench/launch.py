"""launch() of a job of two steps, including the commit ÷ apply_async() of a bare chain of two tasks."""

from __future__ import annotations

import time
from collections.abc import Iterator

from celery import Celery, chain

from bench.baselines import make_tuned
from bench.figures import Figure, compare, side_by_side
from bench.servers import Servers, add_users
from microblog.accounts.models import User
from microblog.exports.tasks import email_export, export_posts
from microblog.extensions import db
from microblog.taskqueue.launch import launch

LAUNCHES = 800  # of each side, alternating
WARM_UP = 20


def run(servers: Servers) -> Iterator[Figure]:
    """Yield one figure for each database."""
    for database in servers.databases:
        with servers.app(servers.environment(database)) as app:
            users = iter(add_users(LAUNCHES + WARM_UP))
            bare = make_tuned(app.config)
            for _turn in range(WARM_UP):
                _launch(next(users)), _launch_bare(bare)
            ours, raw = side_by_side(lambda: _launch(next(users)), lambda: _launch_bare(bare), rounds=LAUNCHES)  # noqa: B023
        what = f"launch() of two steps, {database} ÷ bare chain()"
        yield compare(what, ours, raw, "ms", at_most=3)


def _launch(user_id: int) -> float:
    """Return the milliseconds of one launch within a new session. A user may have only one such job."""
    db.session.get_one(User, user_id)
    began = time.perf_counter()
    launch(chain(export_posts.s(user_id), email_export.s()), user_id=user_id)
    db.session.commit()
    spent = time.perf_counter() - began
    db.session.remove()
    return spent * 1000


def _launch_bare(bare: Celery) -> float:
    step = bare.tasks["tuned_noop"]
    began = time.perf_counter()
    chain(step.s(1), step.s()).apply_async()
    return (time.perf_counter() - began) * 1000
