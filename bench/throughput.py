"""Tasks per second with a row (claim, stored states, events) ÷ the same tasks in bare Celery."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import redis
import sqlalchemy as sa
from flask import Flask

from bench.baselines import TUNED, TUNED_QUEUE, make_tuned
from bench.figures import Figure, compare, side_by_side
from bench.servers import OURS, Servers, add_users
from bench.tasks import noop
from microblog.extensions import SiteRedis, db
from microblog.taskqueue.launch import launch
from microblog.taskqueue.models import Task
from tests.support.servers import wait_for

TASKS = 300  # in one turn; turns are short, so that other load on the machine affects both sides
ROUNDS = 21
QUEUE = "default"


def run(servers: Servers) -> Iterator[Figure]:
    """Yield one figure for each database."""
    for database in servers.databases:
        environment = servers.environment(database)
        with servers.app(environment) as app:
            ours, bare = _Launched(servers.redis.client), _Bare(servers.redis.client, app)
            with (
                servers.worker(environment, OURS, queue=QUEUE),
                servers.worker(environment, TUNED, queue=TUNED_QUEUE),
            ):
                ours.tasks_per_second(), bare.tasks_per_second()  # the first turn connects
                rates = side_by_side(ours.tasks_per_second, bare.tasks_per_second, rounds=ROUNDS)
        yield compare(f"no-op tasks a second, {database} ÷ bare Celery", *rates, "/s", at_least=0.6)


class _Batch:
    """The messages of TASKS tasks, published once while no worker runs, and pushed to their queue in each turn."""

    def __init__(self, client: redis.Redis, queue: str, prefix: str = "") -> None:
        self._client: Any = client
        self._prefix = prefix
        self._queue = queue = prefix + queue
        self._publish()
        self._messages = self._client.lrange(queue, 0, -1)
        self._client.delete(queue)

    def tasks_per_second(self) -> float:
        """Push all messages to the queue; return the tasks per second until the last one is acknowledged."""
        if results := self._results():
            self._client.delete(*results)
        began = time.perf_counter()
        self._client.rpush(self._queue, *self._messages)
        wait_for(
            lambda: not self._client.exists(self._queue, f"{self._prefix}unacked"),
            timeout=120,
            what="all tasks are done",
        )
        spent = time.perf_counter() - began
        assert len(self._results()) == TASKS
        return TASKS / spent

    def _results(self) -> list[str]:
        keys: list[str] = self._client.keys(f"{self._prefix}celery-task-meta-*")
        return keys

    def _publish(self) -> None:
        raise NotImplementedError


class _Launched(_Batch):
    """Microblog's side: jobs of as many users."""

    def __init__(self, client: SiteRedis) -> None:
        super().__init__(client, QUEUE, client.prefix)
        self._rows = [dict(row) for row in db.session.execute(sa.select(*Task.__table__.columns)).mappings()]

    def tasks_per_second(self) -> float:
        """Reset the rows to PENDING, measure, and check that all are finished afterwards."""
        db.session.execute(sa.delete(Task))
        db.session.execute(sa.insert(Task), self._rows)
        db.session.commit()
        rate = super().tasks_per_second()
        unfinished = db.session.scalar(sa.select(sa.func.count()).where(Task.unfinished))
        assert unfinished == 0, f"{unfinished} rows are not finished"
        db.session.rollback()
        return rate

    def _publish(self) -> None:
        for user_id in add_users(TASKS):
            launch(noop.s(), user_id=user_id)
        db.session.commit()


class _Bare(_Batch):
    """Bare Celery's side. The client does not subscribe to results, which would slow Redis down."""

    def __init__(self, client: redis.Redis, app: Flask) -> None:
        self._celery = make_tuned(app.config)
        self._celery.conf.result_backend = "disabled://"
        super().__init__(client, TUNED_QUEUE)

    def _publish(self) -> None:
        for _turn in range(TASKS):
            self._celery.tasks["tuned_noop"].apply_async()
