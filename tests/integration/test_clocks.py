"""Machines whose clocks differ: leases, retries and the order of events follow the clock of the database."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import datetime, timedelta, tzinfo

import pytest
from flask import Flask

from microblog import security
from microblog.clock import utcnow
from microblog.database import AutocommitExecutor, database_time
from microblog.extensions import db
from microblog.taskqueue import transitions
from microblog.taskqueue.errors import HeldElsewhere
from microblog.taskqueue.interface import TaskChange, task_changed
from microblog.taskqueue.reconcile import reconcile_all
from tests.support import not_none, tasks
from tests.support.factories import make_older, row_of, start
from tests.support.servers import RedisServer

# With SQLite, all processes are on one machine.
pytestmark = pytest.mark.parametrize("database", ["postgresql"])

LEASE = 30.0
TOLERANCE = timedelta(seconds=20)  # on a busy machine

OtherMachine = Callable[[], AbstractContextManager[None]]


@pytest.fixture(params=[60, -60], ids=["ahead", "behind"])
def other_machine(request: pytest.FixtureRequest) -> OtherMachine:
    """A function that returns a context in which the clock of this process is 60 seconds ahead or behind."""
    difference = timedelta(seconds=request.param)

    class OtherClock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]  # not of this class
            return datetime.now(tz) + difference

    @contextlib.contextmanager
    def context() -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("microblog.clock.datetime", OtherClock)
            assert abs(utcnow() - datetime.now(utcnow().tzinfo)) > timedelta(seconds=50)
            yield

    return context


@pytest.mark.parametrize("holder_is_right", [True, False])
def test_lease_is_valid_on_all_machines(
    app: Flask, executor: AutocommitExecutor, other_machine: OtherMachine, holder_is_right: bool
) -> None:
    task_id = start(tasks.noop.s())
    this_machine: OtherMachine = contextlib.nullcontext
    holder, other = (this_machine, other_machine) if holder_is_right else (other_machine, this_machine)
    with holder():
        claim = transitions.claim_task(executor, task_id, "one@host", lease=LEASE, max_crashes=3)

    with other():
        with pytest.raises(HeldElsewhere):
            transitions.claim_task(executor, task_id, "two@host", lease=LEASE, max_crashes=3)
        assert reconcile_all() == 0
    with holder():
        assert not_none(claim).lease_valid
        assert abs(not_none(claim).now - database_time(db.session)) < TOLERANCE

    make_older(task_id, lease_expires_at=1)
    with other():
        assert transitions.claim_task(executor, task_id, "two@host", lease=LEASE, max_crashes=3)
    assert row_of(task_id).crashes == 1


def test_message_counts_as_lost_by_the_clock_of_the_database(
    app: Flask, other_machine: OtherMachine, redis_server: RedisServer
) -> None:
    with other_machine():
        task_id = start(tasks.noop.s())
    assert reconcile_all() == 0
    redis_server.client.delete(redis_server.key("default"))
    assert reconcile_all() == 0

    make_older(task_id, created_at=10, published_at=10)

    assert reconcile_all() == 1


def test_changes_are_in_order_of_the_database(
    app: Flask, executor: AutocommitExecutor, other_machine: OtherMachine
) -> None:
    changes: list[TaskChange] = []

    def record(sender: object, change: TaskChange) -> None:
        changes.append(change)

    task_changed.connect(record)
    begun = database_time(db.session)
    add = app.extensions["celery"].tasks["add"]
    with other_machine():
        task_id = start(tasks.add.s(1, 2))
        add.push_request(id=task_id, hostname="one@host", args=[1, 2], kwargs={}, called_directly=False)
        add.before_start(task_id, (1, 2), {})
        add.update_state(state="PROGRESS", meta={"current": 1})
        add.backend.mark_as_done(task_id, 3, request=add.request)
        add.pop_request()

    times = [begun, *[change.at for change in changes], database_time(db.session)]
    assert [change.state for change in changes] == ["PENDING", "STARTED", "PROGRESS", "SUCCESS"]
    assert times == sorted(times)
    assert begun <= row_of(task_id).updated_at <= times[-1]


def test_retry_is_due_by_the_clock_of_the_database(app: Flask, other_machine: OtherMachine) -> None:
    flaky = app.extensions["celery"].tasks["flaky"]
    with other_machine():
        task_id = start(tasks.flaky.s(99))
        flaky.push_request(id=task_id, hostname="one@host", args=[99], kwargs={}, called_directly=False)
        flaky.before_start(task_id, (99,), {})
        flaky.retry(countdown=30, throw=False)
        flaky.backend.mark_as_retry(task_id, OSError("not yet"), request=flaky.request)
        flaky.pop_request()

    pause = not_none(row_of(task_id).eta) - database_time(db.session)
    assert abs(pause - timedelta(seconds=30)) < TOLERANCE


def test_link_of_a_machine_whose_clock_is_ahead_is_valid(app: Flask) -> None:
    with pytest.MonkeyPatch.context() as patch:
        now = utcnow().timestamp()
        patch.setattr("itsdangerous.timed.time.time", lambda: now + 60)
        token = security.sign("a purpose", 7)

    assert security.read_signed("a purpose", token, lifetime=10) == 7


def test_periodic_tasks_of_a_beat_an_hour_behind_do_not_expire(app: Flask) -> None:
    schedule = app.extensions["celery"].conf.beat_schedule

    assert schedule
    assert all(entry["options"]["expires"] > 3600 for entry in schedule.values())
