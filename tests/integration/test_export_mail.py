"""The mail of an export: sent once, whatever the mail server, the database or a worker does."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from celery import Signature
from flask import Flask
from sqlalchemy.exc import OperationalError

from microblog.accounts.models import User
from microblog.clock import utcnow
from microblog.exports.models import Archive
from microblog.exports.tasks import email_export
from microblog.extensions import db
from microblog.taskqueue.models import Task
from microblog.taskqueue.reconcile import reconcile_all
from tests.support.factories import ended, only_job
from tests.support.servers import Postgres, RedisServer, Worker, wait_for
from tests.support.smtp import SmtpServer


def retried(user: User) -> Task | None:
    """The step of a user's job that is to be tried again; None while there is none."""
    job = only_job(user)
    return job.current if job.state == "RETRY" else None


def test_a_permanent_refusal_fails_at_once_with_the_servers_words(
    susan: User, worker: Worker, smtp_server: SmtpServer
) -> None:
    smtp_server.answer = "554 5.7.1 We do not like you"
    susan.launch_task("export_posts", "Export")
    db.session.commit()

    job = ended(susan)

    assert (job.state, job.root.state) == ("FAILURE", "SUCCESS")
    assert job.current.error == "The mail server refused: 554 5.7.1 We do not like you"
    assert smtp_server.refused == 1


@pytest.mark.parametrize("fault", ["451 4.3.0 later", "drop"])
def test_a_temporary_refusal_is_retried_until_the_mail_is_accepted_once(
    susan: User, worker: Worker, smtp_server: SmtpServer, fault: str
) -> None:
    smtp_server.answer, smtp_server.drop = (None, True) if fault == "drop" else (fault, False)
    susan.launch_task("export_posts", "Export")
    db.session.commit()
    retrying = wait_for(lambda: retried(susan), what="the mail is retried")
    assert retrying.eta is not None
    assert retrying.eta > retrying.updated_at

    smtp_server.answer, smtp_server.drop = None, False

    assert ended(susan).state == "SUCCESS"
    assert len(smtp_server.messages) == 1


def test_a_mail_whose_letter_finds_the_database_away_is_tried_again(
    app: Flask, susan: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = Archive(id="a" * 36, user_id=susan.id, path="x", posts=0, size=2, sha256="", expires_at=utcnow())
    db.session.add(archive)
    db.session.commit()
    faults, sent = [OperationalError("SELECT", {}, Exception("the connection was cut"))], []

    def write_letter(user: User, archive: Archive) -> str:
        if faults:
            raise faults.pop()
        return f"to {user.username}"

    monkeypatch.setattr("microblog.exports.tasks.archive_email", write_letter)
    monkeypatch.setattr("microblog.exports.tasks.deliver", lambda task, message: sent.append(message))

    outcome = email_export.apply(args=[{"archive_id": "a" * 36}])

    assert outcome.state == "SUCCESS"
    assert sent == ["to susan"]


@pytest.mark.both_databases
def test_a_connection_that_is_cut_after_the_work_was_done_takes_nothing_back(
    app: Flask, susan: User, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = Archive(id="a" * 36, user_id=susan.id, path="x", posts=0, size=2, sha256="", expires_at=utcnow())
    db.session.add(archive)
    db.session.commit()

    def deliver_and_cut(task: Task, message: None) -> dict[str, Any]:
        if db.engine.dialect.name == "postgresql":
            server: Postgres = request.getfixturevalue("postgres_server")
            server.cut_connections(str(db.engine.url.database))
        return {"message_id": "<a@b>"}

    monkeypatch.setattr("microblog.exports.tasks.archive_email", lambda user, archive: None)
    monkeypatch.setattr("microblog.exports.tasks.deliver", deliver_and_cut)

    outcome = email_export.apply(args=[{"archive_id": "a" * 36}])

    assert outcome.state == "SUCCESS"


@pytest.mark.both_databases
@pytest.mark.parametrize("found_by", ["reconcile", "a worker"])
@pytest.mark.parametrize("cancelled", [False, True])
def test_a_mail_that_was_accepted_is_neither_sent_again_nor_called_cancelled(
    susan: User, worker: Worker, smtp_server: SmtpServer, redis_server: RedisServer, cancelled: bool, found_by: str
) -> None:
    susan.launch_task("export_posts", "Export")
    db.session.commit()
    job = ended(susan)
    assert len(smtp_server.messages) == 1
    accepted = dict(job.steps[1].result or {})

    # As if the worker had died between the server's 250 and the result: the row says that it still runs.
    redis_server.client.delete(f"celery-task-meta-{job.steps[1].id}")
    values: dict[str, Any] = {"state": "STARTED", "result": None, "finished_at": None, "lease_expires_at": utcnow()}
    values |= {"cancel_requested_at": utcnow() if cancelled else None, "worker": "gone@tests"}  # so nobody renews it
    db.session.execute(sa.update(type(job.root)).where(type(job.root).id == job.steps[1].id).values(values))
    db.session.commit()

    if found_by == "reconcile":
        assert reconcile_all() == 1
    else:
        Signature.from_dict(job.steps[1].signature).apply_async((job.steps[0].result,))

    assert ended(susan).state == "SUCCESS"
    assert only_job(susan).steps[1].result == accepted
    assert len(smtp_server.messages) == 1
