"""Tasks a second that have a row (claimed, mirrored, announced) ÷ the same tasks in bare Celery."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

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

TASKS = 2000  # in one turn
ROUNDS = 3
QUEUE, OTHER_QUEUE = "default", "mail"
RESULTS = "celery-task-meta-*"


def run(house: House) -> Iterator[Figure]:
    """One figure for each database."""
    for database in house.databases:
        environment = house.environment(database)
        with house.app(environment) as app:
            ours = _Side(house, environment, OURS, app.extensions["celery"], _launch)
            bare = _Side(house, environment, BARE, _quiet(app), _publish)
            rates = side_by_side(ours.tasks_per_second, bare.tasks_per_second, rounds=ROUNDS)
        yield compare(f"no-op tasks a second, {database} ÷ bare Celery", *rates, "/s", at_least=0.6)


def _quiet(app: Flask) -> Celery:
    """Bare Celery for publishing: without results, or this process would listen for each, and slow Redis down."""
    bare = make_bare(app.config)
    bare.conf.result_backend = "disabled://"
    return bare


def _launch(_celery: Celery) -> None:
    """Launch a job for each of as many users."""
    for user_id in add_users(TASKS):
        launch([noop.s()], user_id=user_id)
    db.session.commit()


def _publish(celery: Celery) -> None:
    for _turn in range(TASKS):
        celery.tasks["bare_noop"].apply_async()


@dataclass
class _Side:
    """One of the two that are compared. What `prepare` does is done once, and put back before each turn."""

    house: House
    environment: dict[str, str]
    module: str
    celery: Celery
    prepare: Callable[[Celery], None]
    _prepared: tuple[Any, list[Any]] | None = None

    def tasks_per_second(self) -> float:
        """How many tasks a worker ends in a second, from when it hears of their queue to the last result."""
        client = self.house.redis.client
        self._put_back()
        with self.house.worker(self.environment, self.module, queue=OTHER_QUEUE):
            began = time.perf_counter()
            self.celery.control.add_consumer(QUEUE)
            wait_for(lambda: not client.exists(QUEUE, "unacked"), timeout=180, what="all tasks are done")
            spent = time.perf_counter() - began
            assert len(client.keys(RESULTS)) == TASKS
        unfinished = db.session.scalar(sa.select(sa.func.count()).where(Task.unfinished))
        assert unfinished == 0, f"{unfinished} rows are not finished"
        return TASKS / spent

    def _put_back(self) -> None:
        client = cast(Any, self.house.redis.client)
        client.flushall()
        db.session.execute(sa.delete(Task))
        db.session.commit()
        if self._prepared is None:
            self.prepare(self.celery)
            messages = client.lrange(QUEUE, 0, -1)
            self._prepared = messages, [dict(row) for row in db.session.execute(sa.select(Task.__table__)).mappings()]
        else:
            messages, rows = self._prepared
            client.rpush(QUEUE, *messages)
            if rows:
                db.session.execute(sa.insert(Task.__table__), rows)
        db.session.commit()
