"""A message that appears to be lost is republished once, and not by every run of reconcile."""

from __future__ import annotations

import contextlib
import json
from datetime import timedelta

import pytest
from flask import Flask

from microblog.database import database_time
from microblog.extensions import db
from microblog.jobs.models import find_job
from microblog.jobs.services import cancel_job
from microblog.taskqueue import reconcile
from microblog.taskqueue.queues import consumed_until
from microblog.taskqueue.reconcile import reconcile_all
from tests.support import tasks
from tests.support.factories import crash, make_older, rows_of, start
from tests.support.servers import RedisServer

pytestmark = pytest.mark.both_databases


@pytest.fixture
def long_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages may be on their way for longer than a test takes on a busy machine."""
    monkeypatch.setattr(reconcile, "GRACE", timedelta(seconds=60))


def test_new_job_is_not_republished(app: Flask, redis_server: RedisServer) -> None:
    start(tasks.noop.s())

    assert reconcile_all() == 0
    assert redis_server.waiting("default") == 1


def test_unpublished_job_is_published(app: Flask, redis_server: RedisServer) -> None:
    with redis_server.stopped():
        task_id = start(tasks.noop.s())
    make_older(task_id, created_at=60)

    assert reconcile_all() == 1

    assert rows_of(task_id)[0].published_at is not None
    assert redis_server.waiting("default") == 1


def test_republished_message_keeps_root_id(app: Flask, redis_server: RedisServer) -> None:
    with redis_server.stopped():
        task_id = start(tasks.noop.s(), tasks.noop.s())
    make_older(task_id, created_at=60)

    reconcile_all()

    [message] = redis_server.messages("default")
    assert json.loads(message)["headers"]["root_id"] == task_id


def test_job_is_republished_after_redis_data_loss(app: Flask, redis_server: RedisServer) -> None:
    task_id = start(tasks.noop.s())
    make_older(task_id, created_at=30, published_at=30)
    with redis_server.stopped():
        pass
    start(tasks.noop.s())  # so that the queue is not empty

    assert reconcile_all() == 1
    assert redis_server.waiting("default") == 2


def test_job_in_its_queue_is_not_republished(app: Flask, redis_server: RedisServer) -> None:
    """However long it waits: as long as its message is in the queue, or an older one is, it is not lost."""
    older, newer = start(tasks.noop.s()), start(tasks.noop.s())
    for task_id in (older, newer):
        make_older(task_id, created_at=36_000, published_at=36_000)
    redis_server.make_messages_older("default", 36_000)

    assert reconcile_all() == 0
    redis_server.client.lpop(redis_server.key("default"))  # the newer one is lost
    assert reconcile_all() == 0
    redis_server.client.lpop(redis_server.key("default"))  # the older one is taken
    assert reconcile_all() == 2
    assert reconcile_all() == 0
    assert redis_server.waiting("default") == 2


@pytest.mark.usefixtures("long_grace")
def test_message_that_left_its_queue_is_lost(app: Flask, redis_server: RedisServer) -> None:
    """The queue is not empty, but its oldest message is newer."""
    lost = start(tasks.noop.s())
    redis_server.client.delete(redis_server.key("default"))
    start(tasks.noop.s())
    make_older(lost, created_at=40, published_at=40)
    assert reconcile_all() == 0

    make_older(lost, created_at=80, published_at=80)

    assert reconcile_all() == 1
    assert redis_server.waiting("default") == 2


def test_message_that_was_given_back_counts_as_waiting(app: Flask, redis_server: RedisServer) -> None:
    """A worker gives a message back to the end from which it is taken next, though others may be older."""
    task_id = start(tasks.noop.s())
    make_older(task_id, created_at=60, published_at=60)
    redis_server.make_messages_older("default", 60)
    start(tasks.noop.s())
    [newer, older] = redis_server.messages("default")
    redis_server.client.delete(redis_server.key("default"))
    redis_server.client.rpush(redis_server.key("default"), older, newer)

    assert reconcile_all() == 0


def test_orphan_is_republished_once(app: Flask, redis_server: RedisServer) -> None:
    task_id = start(tasks.noop.s())
    crash(app, task_id)
    make_older(task_id, created_at=30, published_at=2)

    assert [reconcile_all() for _run in range(3)] == [1, 0, 0]
    assert redis_server.waiting("default") == 2


@pytest.mark.usefixtures("long_grace")
def test_job_lost_from_empty_queue_is_republished_soon(app: Flask, redis_server: RedisServer) -> None:
    task_id = start(tasks.noop.s())
    redis_server.client.delete(redis_server.key("default"))
    make_older(task_id, created_at=40, published_at=40)
    assert reconcile_all() == 0

    make_older(task_id, created_at=80, published_at=80)

    assert reconcile_all() == 1
    assert redis_server.waiting("default") == 1


def test_message_lost_after_a_crash_is_republished_soon(app: Flask, redis_server: RedisServer) -> None:
    task_id = start(tasks.noop.s())
    crash(app, task_id)
    redis_server.client.delete(redis_server.key("default"))
    make_older(task_id, created_at=3_600, lease_expires_at=7, published_at=6)

    assert reconcile_all() == 1
    assert redis_server.waiting("default") == 1


@pytest.mark.usefixtures("long_grace")
@pytest.mark.parametrize(
    ("created_at", "published_at", "published"),
    [(40, 40, 0), (80, 80, 1), (300, 100, 0), (300, 151, 1), (10_000, 850, 0), (10_000, 910, 1)],
)
def test_republish_pauses_grow_to_15_minutes(
    app: Flask, redis_server: RedisServer, created_at: float, published_at: float, published: int
) -> None:
    task_id = start(tasks.noop.s())
    redis_server.client.delete(redis_server.key("default"))
    make_older(task_id, created_at=created_at, published_at=published_at)

    assert reconcile_all() == published


def test_orphan_whose_message_was_given_back_is_not_republished(app: Flask, redis_server: RedisServer) -> None:
    """A worker requeues the message of a child process that died."""
    task_id = start(tasks.noop.s())
    crash(app, task_id)
    redis_server.make_messages_older("default", 60)
    make_older(task_id, published_at=60)

    assert reconcile_all() == 0

    redis_server.client.delete(redis_server.key("default"))
    assert reconcile_all() == 1


@pytest.mark.parametrize(("due_ago", "published"), [(0, 0), (10, 1)])
def test_retry_of_an_earlier_release_waits_until_it_is_due(
    app: Flask, redis_server: RedisServer, due_ago: float, published: int
) -> None:
    """A worker of that release has published it in advance, and keeps its message in memory until it is due."""
    task_id = start(tasks.noop.s())
    redis_server.client.delete(redis_server.key("default"))
    make_older(task_id, created_at=600, published_at=300, eta=due_ago)

    assert reconcile_all() == published


@pytest.mark.parametrize("published_before", [False, True])
def test_concurrent_reconcile_publishes_once(app: Flask, redis_server: RedisServer, published_before: bool) -> None:
    with contextlib.nullcontext() if published_before else redis_server.stopped():
        task_id = start(tasks.noop.s())
    make_older(task_id, created_at=120, **({"published_at": 120} if published_before else {}))
    redis_server.client.delete(redis_server.key("default"))
    now = database_time(db.session)
    consumed = consumed_until(now)
    [head] = list(reconcile._current_steps(consumed))

    decisions = [reconcile._decide(head, consumed, now) for _process in range(2)]
    outcomes = [decision is not None and decision.act() for decision in decisions]

    assert outcomes == [True, False]
    assert redis_server.waiting("default") == 1


@pytest.mark.both_databases(each_run=False)
def test_just_cancelled_job_is_not_published(app: Flask, redis_server: RedisServer) -> None:
    with redis_server.stopped():
        task_id = start(tasks.noop.s())
    make_older(task_id, created_at=60)
    now = database_time(db.session)
    consumed = consumed_until(now)
    [head] = list(reconcile._current_steps(consumed))
    job = find_job(task_id)
    assert job is not None
    cancel_job(job)

    decision = reconcile._decide(head, consumed, now)
    assert decision is not None
    assert not decision.act()

    assert [(row.state, row.published_at) for row in rows_of(task_id)] == [("REVOKED", None)]
    assert redis_server.waiting("default") == 0
