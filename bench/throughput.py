"""Tasks a second that have a row (claimed, mirrored, announced) ÷ the same tasks in bare Celery."""

from __future__ import annotations

import time
from collections.abc import Iterator

import sqlalchemy as sa
from celery import Celery
from flask import Flask

from bench.bare import make_bare
from bench.figures import Figure, compare, side_by_side
from bench.house import BARE, OURS, House, add_users
from bench.tasks import noop
from microblog.extensions import db
from microblog.taskqueue.launch import launch
from microblog.taskqueue.models import Task
from tests.support.services import wait_for

TASKS = 3000  # in one turn
ROUNDS = 3
RESULTS = "celery-task-meta-*"


def run(house: House) -> Iterator[Figure]:
    """One figure for each database."""
    for database in house.databases:
        environment = house.environment(database)
        with house.app(environment) as app:
            users = add_users(TASKS)
            ours, raw = side_by_side(
                lambda: _ours(house, environment, app, users),  # noqa: B023
                lambda: _bare(house, environment, app),  # noqa: B023
                rounds=ROUNDS,
            )
        yield compare(f"no-op tasks a second, {database} ÷ bare Celery", ours, raw, "/s", at_least=0.6)


def _ours(house: House, environment: dict[str, str], app: Flask, users: list[int]) -> float:
    """Tasks a second, of tasks launched by as many users."""
    house.redis.client.flushall()
    for user_id in users:
        launch([noop.s()], user_id=user_id)
    db.session.commit()
    with house.worker(environment, OURS, queue="mail"):
        spent = _consume(house, app.extensions["celery"])
        unfinished = db.session.scalar(sa.select(sa.func.count()).where(Task.unfinished))
    assert unfinished == 0, f"{unfinished} rows are not finished"
    db.session.execute(sa.delete(Task))
    db.session.commit()
    return TASKS / spent


def _bare(house: House, environment: dict[str, str], app: Flask) -> float:
    """Tasks a second, of tasks that nobody waits for."""
    house.redis.client.flushall()
    bare = make_bare(app.config)
    bare.conf.result_backend = "disabled://"  # or this process would listen for each result, and slow Redis down
    for _turn in range(TASKS):
        bare.tasks["bare_noop"].apply_async()
    with house.worker(environment, BARE, queue="mail"):
        return TASKS / _consume(house, bare)


def _consume(house: House, celery: Celery) -> float:
    """Seconds from when an idle worker hears of the queue to the last result."""
    client = house.redis.client
    others = client.dbsize()
    began = time.perf_counter()
    celery.control.add_consumer("default")
    wait_for(lambda: client.dbsize() >= others + TASKS - 1, timeout=180)
    wait_for(lambda: len(client.keys(RESULTS)) == TASKS and not client.exists("unacked"), timeout=20)
    return time.perf_counter() - began
