"""Machines whose clocks differ: leases, retries and the order of events follow the clock of the database."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta, tzinfo
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from flask import Flask, render_template_string
from flask_login import login_user

from microblog import security
from microblog.accounts.models import User
from microblog.clock import iso, utcnow
from microblog.database import AutocommitExecutor, database_time
from microblog.extensions import db
from microblog.imports.parsers import EntryRejected, _parse_time
from microblog.jobs import SHOWN_FOR
from microblog.monitoring.rollup import roll_up
from microblog.monitoring.workers import HeartbeatStep, registered_workers
from microblog.notifications.replay import unread_count_events
from microblog.notifications.services import notify
from microblog.posts.models import Post
from microblog.posts.services import create_post
from microblog.taskqueue import transitions
from microblog.taskqueue.errors import HeldElsewhere
from microblog.taskqueue.interface import TaskChange, task_changed
from microblog.taskqueue.models import Task
from microblog.taskqueue.reconcile import reconcile_all
from tests.support import not_none, tasks
from tests.support.factories import make_older, row_of, run_of, start
from tests.support.prometheus import TOKEN
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
    with other_machine():
        task_id = start(tasks.add.s(1, 2))
        with run_of(app, task_id, "add", 1, 2) as add:
            add.update_state(state="PROGRESS", meta={"current": 1})
            add.backend.mark_as_done(task_id, 3, request=add.request)

    times = [begun, *[change.at for change in changes], database_time(db.session)]
    assert [change.state for change in changes] == ["PENDING", "STARTED", "PROGRESS", "SUCCESS"]
    assert times == sorted(times)
    assert begun <= row_of(task_id).updated_at <= times[-1]


def test_retry_is_due_by_the_clock_of_the_database(app: Flask, other_machine: OtherMachine) -> None:
    with other_machine():
        task_id = start(tasks.flaky.s(99))
        with run_of(app, task_id, "flaky", 99) as flaky:
            flaky.retry(countdown=30, throw=False)
            flaky.backend.mark_as_retry(task_id, OSError("not yet"), request=flaky.request)

    pause = not_none(row_of(task_id).eta) - database_time(db.session)
    assert abs(pause - timedelta(seconds=30)) < TOLERANCE


def test_pages_and_their_events_have_the_time_of_the_database(
    app: Flask, make_user: Callable[..., User], other_machine: OtherMachine
) -> None:
    """A page requests what has changed since its time, so that an event with another time could be missed."""
    user = make_user()
    with other_machine():
        create_post(user.id, "Hello")
        row = notify(user.id, "noop", "a subject")
        db.session.commit()
        page_time = datetime.fromtimestamp(float(render_template_string("{{ current_timestamp() }}")), UTC)
        event_times = [datetime.fromtimestamp(event["timestamp"], UTC) for event in unread_count_events(user.id)]

    times = [page_time, not_none(row).updated_at, db.session.scalars(sa.select(Post.timestamp)).one(), *event_times]
    assert len(times) > 3
    assert all(abs(time - database_time(db.session)) < TOLERANCE for time in times)


@pytest.mark.parametrize(
    "metric", ['microblog_task_waiting_seconds{queue="default"}', 'microblog_job_age_seconds{name="noop"}']
)
def test_metrics_have_the_time_of_the_database(
    app: Flask, other_machine: OtherMachine, monkeypatch: pytest.MonkeyPatch, metric: str
) -> None:
    monkeypatch.setitem(app.config, "METRICS_TOKEN", TOKEN)
    make_older(start(tasks.noop.s()), created_at=30)

    with other_machine():
        text = app.test_client().get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"}).text

    [seconds] = [float(line.removeprefix(metric)) for line in text.splitlines() if line.startswith(metric)]
    assert abs(seconds - 30) < TOLERANCE.total_seconds()


@pytest.mark.parametrize(("seconds_ago", "added"), [(90, 0), (150, 1)])
def test_statistics_end_by_the_clock_of_the_database(
    app: Flask, other_machine: OtherMachine, seconds_ago: int, added: int
) -> None:
    """They include what ended two minutes ago: a task that is stored with a time before that would be left out."""
    ended = database_time(db.session) - timedelta(seconds=seconds_ago)
    db.session.execute(
        sa.update(Task).where(Task.id == start(tasks.noop.s())).values(state="SUCCESS", finished_at=ended)
    )
    db.session.commit()

    with other_machine():
        assert roll_up() == added


def test_panel_shows_jobs_by_the_clock_of_the_database(
    app: Flask, make_user: Callable[..., User], other_machine: OtherMachine
) -> None:
    user = make_user()
    for seconds_ago, shown in ((SHOWN_FOR.total_seconds() - 30, "1"), (SHOWN_FOR.total_seconds() + 30, "0")):
        task_id = start(tasks.noop.s())
        ended = database_time(db.session) - timedelta(seconds=seconds_ago)
        values = {"user_id": user.id, "state": "SUCCESS", "finished_at": ended, "updated_at": ended}
        db.session.execute(sa.delete(Task).where(Task.id != task_id))
        db.session.execute(sa.update(Task).values(values))
        db.session.commit()
        with app.test_request_context(), other_machine():
            login_user(user)
            assert render_template_string("{{ recent_jobs() | length }}") == shown


def test_heartbeats_have_the_time_of_redis(app: Flask, other_machine: OtherMachine, redis_server: RedisServer) -> None:
    consumer = SimpleNamespace(app=app.extensions["celery"], hostname="one@host")
    with other_machine():
        HeartbeatStep(consumer)._register(consumer)

    assert abs(registered_workers()["one@host"] - utcnow()) < TOLERANCE


def test_archive_from_a_machine_whose_clock_is_ahead_is_accepted(app: Flask) -> None:
    a_minute_ahead = iso(utcnow() + timedelta(seconds=60))

    assert _parse_time(a_minute_ahead) > utcnow()
    with app.test_request_context(), pytest.raises(EntryRejected, match="future"):
        _parse_time(iso(utcnow() + timedelta(hours=1)))


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
