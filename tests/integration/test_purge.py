"""What has had its time is deleted, a few rows at a time, and nothing else is."""

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


def finished(*days_ago: float | None) -> str:
    """A job whose steps ended so many days ago; None: has yet to end."""
    root = launch(chain(*[tasks.noop.s() for _ in days_ago]))
    db.session.commit()
    for position, days in enumerate(days_ago):
        if days is not None:
            values = {"state": "SUCCESS", "finished_at": utcnow() - timedelta(days=days)}
            db.session.execute(sa.update(Task).where(Task.root_id == root.id, Task.position == position).values(values))
    db.session.commit()
    return root.id


def purge_what_is_counted() -> None:
    roll_up()
    purge_tasks()


def remaining() -> set[str]:
    return set(db.session.scalars(sa.select(Task.root_id)))


def test_jobs_that_ended_before_the_lifetime_go_with_all_their_steps(app: Flask) -> None:
    finished(3, 2)
    finished(1.1)
    kept = {finished(0.9), finished(None), finished(3, None), finished(3, 0.5)}

    purge_what_is_counted()

    assert remaining() == kept


def test_many_rows_are_deleted_in_small_transactions(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("microblog.jobs.tasks.BATCH", 2)
    for days in range(2, 7):
        finished(days)
    commits: list[object] = []

    def note(session: object) -> None:
        commits.append(session)

    roll_up()
    sa.event.listen(db.session, "after_commit", note)
    purge_tasks()
    sa.event.remove(db.session, "after_commit", note)

    assert remaining() == set()
    assert len(commits) == 3


def test_what_is_in_no_statistics_yet_stays(app: Flask) -> None:
    kept = {finished(3), finished(2)}

    purge_tasks()
    assert remaining() == kept

    purge_what_is_counted()
    assert remaining() == set()


def test_a_lifetime_of_nothing_keeps_them_for_good(app: Flask) -> None:
    app.config["TASK_LIFETIME"] = 0
    kept = finished(10_000)
    db.session.add(SentMail(id=kept, message_id="<a@b>", accepted_at=utcnow() - timedelta(days=10_000)))
    db.session.commit()

    purge_what_is_counted()
    purge_sent_mails()

    assert remaining() == {kept}
    assert db.session.get(SentMail, kept) is not None


def test_what_was_mailed_is_forgotten_with_the_job_that_mailed_it(app: Flask) -> None:
    for name, days in (("old", 2), ("new", 0.5)):
        db.session.add(SentMail(id=name, message_id=f"<{name}@b>", accepted_at=utcnow() - timedelta(days=days)))
    db.session.commit()

    purge_sent_mails()

    assert db.session.scalars(sa.select(SentMail.id)).all() == ["new"]


def test_what_is_old_is_found_by_an_index(app: Flask, database: str) -> None:
    if database == "postgresql":
        db.session.execute(sa.text("SET enable_seqscan = off"))
    explain = "EXPLAIN QUERY PLAN " if database == "sqlite" else "EXPLAIN "

    plan = db.session.execute(
        sa.text(explain + "SELECT root_id FROM task WHERE finished_at < '2026-01-01' ORDER BY finished_at LIMIT 500")
    )

    assert "ix_task_finished_at" in str(plan.all())
