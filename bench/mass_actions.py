"""Operators cancel, retry and purge the waiting exports of many users with `flask tasks`."""

from __future__ import annotations

import time
from collections.abc import Iterator

import sqlalchemy as sa

from bench.figures import Figure, state
from bench.servers import Servers, add_users, run_flask
from microblog.exports.services import export_job
from microblog.extensions import db
from microblog.taskqueue import states
from microblog.taskqueue.celery_settings import LONG_QUEUE
from microblog.taskqueue.launch import launch
from microblog.taskqueue.models import Task

MANY = 10_000
LAUNCHED_AT_ONCE = 500
RATE = 500  # jobs per second


def run(servers: Servers, jobs: int = MANY) -> Iterator[Figure]:
    """Yield for each database the rate of each command, which includes its start, and the messages that remain."""
    for database in servers.databases:
        environment = servers.environment(database)
        with servers.app(environment):
            _launch(jobs)
            messages = _messages(servers)
            assert messages == jobs
            name = f"{jobs:,} jobs, {database}"
            yield _rate(f"{name}: cancel", jobs, environment, "cancel", "--state", "PENDING", "--yes")
            assert _count(states.PENDING) == 0
            yield state(f"{name}: messages left by cancel", _messages(servers), "", at_most=0)
            yield _rate(f"{name}: retry", jobs, environment, "retry", "--state", "REVOKED", "--yes")
            assert _count(states.PENDING) == 2 * jobs
            yield state(f"{name}: messages sent by retry", _messages(servers), "")
            yield _rate(f"{name}: purge", jobs, environment, "purge", LONG_QUEUE, "--yes")
            yield state(f"{name}: messages left by purge", _messages(servers), "", at_most=0)


def _launch(jobs: int) -> None:
    for number, user_id in enumerate(add_users(jobs), start=1):
        launch(export_job(user_id), user_id=user_id)
        if number % LAUNCHED_AT_ONCE == 0 or number == jobs:
            db.session.commit()


def _rate(what: str, jobs: int, environment: dict[str, str], *arguments: str) -> Figure:
    began = time.monotonic()
    run_flask(environment, "tasks", *arguments)
    return state(what, jobs / (time.monotonic() - began), "jobs/s", at_least=RATE)


def _messages(servers: Servers) -> int:
    return int(servers.redis.client.llen(servers.redis.key(LONG_QUEUE)))


def _count(wanted: str) -> int:
    """Return the number of tasks in this state."""
    db.session.rollback()
    return db.session.scalar(sa.select(sa.func.count()).where(Task.state == wanted)) or 0
