"""Expired rows are deleted in small batches; other rows are kept."""

from __future__ import annotations

from datetime import timedelta

import pytest
import sqlalchemy as sa
from celery import chain
from flask import Flask

from microblog.clock import utcnow
from microblog.extensions import db
from microblog.jobs.tasks import purge_tasks
from microblog.mail.models import SentMail
from microblog.mail.tasks import purge_sent_mails
from microblog.monitoring.rollup import roll_up
from microblog.taskqueue.launch import launch
from microblog.taskqueue.models import Task
from tests.support import tasks

pytestmark = pytest.mark.both_databases

DAY = 24 * 3600


@pytest.fixture
def app(app: Flask) -> Flask:
    app.config["TASK_LIFETIME"] = DAY
    return app


def finished_job(*days_ago: float | None) -> str:
    """Create a job whose steps ended the given numbers of days ago (None: unfinished); return its id."""
    root = launch(chain(*[tasks.noop.s() for _ in days_ago]))
    db.session.commit()
    for position, days in enumerate(days_ago):
        if days is not None:
            values = {"state": "SUCCESS", "finished_at": utcnow() - timedelta(days=days)}
            db.session.execute(sa.update(Task).where(Task.root_id == root.id, Task.position == position).values(values))
    db.session.commit()
    return root.id


def roll_up_and_purge() -> None:
    roll_up()
    purge_tasks()


def remaining() -> set[str]:
    return set(db.session.scalars(sa.select(Task.root_id)))


def test_expired_jobs_are_deleted_with_all_steps(app: Flask) -> None:
    finished_job(3, 2)
    finished_job(1.1)
    expected = {finished_job(0.9), finished_job(None), finished_job(3, None), finished_job(3, 0.5)}

    roll_up_and_purge()

    assert remaining() == expected


def test_rows_are_deleted_in_small_transactions(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("microblog.jobs.tasks.BATCH", 2)
    for days in range(2, 7):
        finished_job(days)
    commits: list[object] = []

    def record(session: object) -> None:
        commits.append(session)

    roll_up()
    sa.event.listen(db.session, "after_commit", record)
    purge_tasks()
    sa.event.remove(db.session, "after_commit", record)

    assert remaining() == set()
    assert len(commits) == 3


def test_jobs_not_rolled_up_are_not_purged(app: Flask) -> None:
    expected = {finished_job(3), finished_job(2)}

    purge_tasks()
    assert remaining() == expected

    roll_up_and_purge()
    assert remaining() == set()


def test_lifetime_zero_disables_purge(app: Flask) -> None:
    app.config["TASK_LIFETIME"] = 0
    job_id = finished_job(10_000)
    db.session.add(SentMail(id=job_id, message_id="<a@b>", accepted_at=utcnow() - timedelta(days=10_000)))
    db.session.commit()

    roll_up_and_purge()
    purge_sent_mails()

    assert remaining() == {job_id}
    assert db.session.get(SentMail, job_id) is not None


def test_expired_sent_mails_are_purged(app: Flask) -> None:
    for name, days in (("old", 2), ("new", 0.5)):
        db.session.add(SentMail(id=name, message_id=f"<{name}@b>", accepted_at=utcnow() - timedelta(days=days)))
    db.session.commit()

    purge_sent_mails()

    assert db.session.scalars(sa.select(SentMail.id)).all() == ["new"]


def test_purge_query_uses_index(app: Flask, database: str) -> None:
    if database == "postgresql":
        db.session.execute(sa.text("SET enable_seqscan = off"))
    explain = "EXPLAIN QUERY PLAN " if database == "sqlite" else "EXPLAIN "

    plan = db.session.execute(
        sa.text(explain + "SELECT root_id FROM task WHERE finished_at < '2026-01-01' ORDER BY finished_at LIMIT 500")
    )

    assert "ix_task_finished_at" in str(plan.all())
