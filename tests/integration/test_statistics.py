"""Statistics of finished tasks: each task is counted once, whenever and however often rows are rolled up."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import NoReturn

import pytest
import sqlalchemy as sa
from flask import Flask

from microblog.clock import utcnow
from microblog.extensions import db
from microblog.monitoring import rollup, statistics
from microblog.monitoring.models import RollUp, TaskHour
from microblog.monitoring.rollup import HOUR, TaskAggregate, roll_up, rolled_up_until
from microblog.taskqueue.models import Task
from tests.support.factories import make_timed_job

pytestmark = pytest.mark.both_databases

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
AT_ONCE = timedelta(0)


def totals() -> dict[tuple[str, str], TaskAggregate]:
    with statistics.snapshot() as session:
        return statistics.totals(session)


def counted() -> dict[tuple[str, str], int]:
    return {key: aggregate.count for key, aggregate in totals().items() if aggregate.count}


def in_table() -> dict[tuple[str, str], int]:
    db.session.rollback()
    rows = db.session.execute(
        sa.select(Task.name, Task.state, sa.func.count())
        .where(Task.finished_at.is_not(None))
        .group_by(Task.name, Task.state)
    )
    return {(name, state): count for name, state, count in rows}


def test_snapshot_does_not_see_later_changes(app: Flask) -> None:
    number = sa.select(sa.func.count()).select_from(Task)
    with statistics.snapshot() as session:
        seen = [session.scalar(number)]
        make_timed_job(("export_posts", "SUCCESS"))
        seen.append(session.scalar(number))

    assert seen == [0, 0]
    assert db.session.scalar(number) == 1


class TestRollUp:
    def test_roll_up_does_not_change_totals(self, app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
        now = utcnow()
        monkeypatch.setattr(rollup, "database_time", lambda session: now)
        for minutes in range(0, 300, 20):
            at = now - timedelta(minutes=minutes)
            make_timed_job(("export_posts", "SUCCESS"), ("email_export", "FAILURE"), at=at)
        previous = totals(), statistics.by_hour(NOON, now + HOUR)

        added = roll_up()

        assert added == 28, "two tasks have ended just now"
        assert (totals(), statistics.by_hour(NOON, now + HOUR)) == previous
        assert counted() == in_table()

    def test_roll_up_is_idempotent(self, app: Flask) -> None:
        make_timed_job(("noop", "SUCCESS"), at=NOON)

        assert (roll_up(), roll_up()) == (1, 0)

        assert counted() == {("noop", "SUCCESS"): 1}

    def test_deleted_rows_stay_counted(self, app: Flask) -> None:
        make_timed_job(("noop", "SUCCESS"), at=NOON)
        roll_up()

        db.session.execute(sa.delete(Task))
        db.session.commit()
        roll_up()

        assert counted() == {("noop", "SUCCESS"): 1}
        assert [hour.finished for hour in statistics.by_hour(NOON, NOON + HOUR)] == [1]

    def test_concurrent_roll_ups_count_each_task_once(self, app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(rollup, "BATCH", 7)
        for second in range(60):
            make_timed_job(("noop", "SUCCESS"), at=NOON + timedelta(seconds=second // 3))
        added: list[int] = []

        def run() -> None:
            with app.app_context():
                added.append(roll_up())

        threads = [threading.Thread(target=run) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert sum(added) == 60
        assert counted() == {("noop", "SUCCESS"): 60}

    def test_late_task_is_counted(self, app: Flask) -> None:
        make_timed_job(("noop", "SUCCESS"), at=NOON)
        db.session.execute(sa.update(RollUp).values(until=NOON + HOUR))
        db.session.commit()
        make_timed_job(("noop", "SUCCESS"), ("late", "SUCCESS"), at=NOON + timedelta(minutes=1))
        assert counted() == {}

        roll_up()

        assert counted() == in_table() == {("noop", "SUCCESS"): 2, ("late", "SUCCESS"): 1}
        [noop] = statistics.by_hour(NOON, NOON + HOUR, "noop")
        assert (noop.finished, noop.run.count) == (2, 2)

    def test_rolled_up_until_is_last_settled_hour(self, app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
        now = utcnow()
        monkeypatch.setattr(rollup, "database_time", lambda session: now)
        make_timed_job(("noop", "SUCCESS"), at=NOON)
        assert rolled_up_until() < NOON

        roll_up()

        settled = rolled_up_until()
        assert timedelta(hours=1) <= now - settled <= timedelta(hours=2) + rollup.LAG
        assert settled.minute == settled.second == settled.microsecond == 0

    def test_failed_roll_up_is_rolled_back(self, app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: object) -> NoReturn:
            raise ZeroDivisionError

        make_timed_job(("noop", "SUCCESS"), at=NOON)
        with monkeypatch.context() as patch:
            patch.setattr(RollUp, "until", property(lambda _: NOON - HOUR, fail))
            with pytest.raises(ZeroDivisionError):
                roll_up()
        assert db.session.scalar(sa.select(sa.func.count()).select_from(TaskHour)) == 0

        assert roll_up() == 1


class TestByHour:
    def test_by_hour_groups_by_hour_and_name(self, app: Flask) -> None:
        for _ in range(3):
            make_timed_job(("add", "SUCCESS"), at=NOON, wait=0.5, run=4.0)
        make_timed_job(("add", "FAILURE"), at=NOON + timedelta(minutes=59), attempts=3, crashes=1)
        make_timed_job(("add", "REVOKED"), at=NOON + timedelta(minutes=59), wait=None)
        make_timed_job(("noop", "SUCCESS"), at=NOON + HOUR)
        make_timed_job(("noop", "SUCCESS"), at=NOON + 2 * HOUR)

        first, second = statistics.by_hour(NOON + timedelta(minutes=30), NOON + 2 * HOUR)

        assert (first.hour, first.name, second.hour, second.name) == (NOON, "add", NOON + HOUR, "noop")
        assert first.counts == {"SUCCESS": 3, "FAILURE": 1, "REVOKED": 1}
        assert (first.finished, first.failure_rate, first.attempts, first.crashes) == (5, 0.25, 6, 1)
        assert (first.wait.count, first.run.count) == (4, 4)
        assert first.wait.p50 == pytest.approx(0.5, rel=0.045)
        assert first.run.p50 == first.run.p99 == pytest.approx(4.0, rel=0.045)
        assert first.run.mean == pytest.approx(3.5)

    def test_wait_of_step_begins_after_previous_step(self, app: Flask) -> None:
        make_timed_job(("export_posts", "SUCCESS"), ("email_export", "SUCCESS"), at=NOON, wait=1.0, run=500.0)

        for hour in statistics.by_hour(NOON, NOON + HOUR):
            assert hour.wait.mean == pytest.approx(1.0), hour.name

    def test_job_is_counted_by_first_step_name(self, app: Flask) -> None:
        make_timed_job(("export_posts", "SUCCESS"), ("email_export", "FAILURE"), at=NOON)
        make_timed_job(("export_posts", "FAILURE"), ("email_export", "FAILURE"), at=NOON)
        make_timed_job(("export_posts", "SUCCESS"), ("email_export", "SUCCESS"), at=NOON)
        make_timed_job(("export_posts", "SUCCESS"), ("email_export", "STARTED"), at=NOON)

        jobs = {key: aggregate.jobs for key, aggregate in totals().items() if aggregate.jobs}

        assert jobs == {("export_posts", "FAILURE"): 2, ("export_posts", "SUCCESS"): 1}

    def test_query_for_new_tasks_uses_index(self, app: Flask, database: str) -> None:
        columns = {"name": "noop", "queue": "default", "state": "SUCCESS", "signature": {}}
        db.session.execute(
            sa.insert(Task),
            [
                columns | {"id": str(n), "root_id": str(n), "finished_at": NOON - timedelta(seconds=n)}
                for n in range(-10, 5000)
            ],
        )
        db.session.execute(sa.text("ANALYZE task"))  # PostgreSQL's planner needs statistics of the rows
        query = str(
            sa.select(Task.name)
            .where(Task.finished_at > NOON)
            .compile(db.engine, compile_kwargs={"literal_binds": True})
        )

        explain = "EXPLAIN QUERY PLAN " if database == "sqlite" else "EXPLAIN "
        plan = str(db.session.connection().exec_driver_sql(explain + query).all())

        assert "ix_task_finished_at" in plan


class TestFailures:
    def test_failures_are_grouped_by_exception(self, app: Flask) -> None:
        for number in (1, 2):
            make_timed_job(
                ("add", "FAILURE"),
                at=NOON + timedelta(minutes=number),
                error="Something went wrong on our side.",
                traceback='Traceback (most recent call last):\n  File "a.py", line 7, in run\n    boom\n'
                f"some.module.Boom: user {number} broke 'plate {number}'\n",
            )
        last = make_timed_job(("add", "FAILURE"), at=NOON + HOUR, error="The moon is in the wrong house.")
        make_timed_job(("add", "SUCCESS"), at=NOON)

        boom, moon = statistics.group_failures(NOON)

        assert (boom.name, boom.kind, boom.text, boom.count) == ("add", "Boom", "user N broke <text>", 2)
        assert (boom.first, boom.last) == (NOON + timedelta(minutes=1), NOON + timedelta(minutes=2))
        assert (moon.kind, moon.text, moon.example) == ("", "The moon is in the wrong house.", last)
        assert statistics.group_failures(NOON + HOUR) == [moon]
        assert statistics.group_failures(NOON, "noop") == []

    def test_steps_failed_with_predecessor_are_not_counted(self, app: Flask) -> None:
        job = make_timed_job(("export_posts", "FAILURE"), ("email_export", "FAILURE"), at=NOON, error="Broken.")

        [cause] = statistics.group_failures(NOON)

        assert (cause.name, cause.count, cause.example) == ("export_posts", 1, job)
