"""The mail of an export is sent once, whether the mail server, the database or a worker fails."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from celery import Signature
from flask import Flask

from microblog.accounts.models import User
from microblog.clock import utcnow
from microblog.database import DatabaseUnavailable
from microblog.exports.models import Archive
from microblog.exports.tasks import email_export
from microblog.extensions import db
from microblog.taskqueue.models import Task
from microblog.taskqueue.reconcile import reconcile_all
from tests.support.factories import ended, only_job
from tests.support.servers import Postgres, RedisServer, Worker, wait_for
from tests.support.smtp import SmtpServer


def retried(user: User) -> Task | None:
    """Return the current step of the user's job if it is in state RETRY, otherwise None."""
    job = only_job(user)
    return job.current if job.state == "RETRY" else None


def test_permanent_refusal_fails_with_server_reply(susan: User, worker: Worker, smtp_server: SmtpServer) -> None:
    smtp_server.answer = "554 5.7.1 We do not like you"
    susan.launch_task("export_posts", "Export")
    db.session.commit()

    job = ended(susan)

    assert (job.state, job.root.state) == ("FAILURE", "SUCCESS")
    assert job.current.error == "The mail server refused: 554 5.7.1 We do not like you"
    assert smtp_server.refused == 1


@pytest.mark.parametrize("fault", ["451 4.3.0 later", "drop"])
def test_temporary_refusal_is_retried_until_accepted(
    susan: User, worker: Worker, smtp_server: SmtpServer, fault: str
) -> None:
    smtp_server.answer, smtp_server.drop = (None, True) if fault == "drop" else (fault, False)
    susan.launch_task("export_posts", "Export")
    db.session.commit()
    retrying = wait_for(lambda: retried(susan), what="the mail is retried")
    assert retrying.eta is not None
    assert retrying.eta > retrying.updated_at

    smtp_server.answer, smtp_server.drop = None, False
    wait_for(reconcile_all, what="the retry is due")

    assert ended(susan).state == "SUCCESS"
    assert len(smtp_server.messages) == 1


@pytest.mark.both_databases(each_run=False)
def test_mail_is_retried_if_database_is_unavailable(app: Flask, susan: User, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = Archive(id="a" * 36, user_id=susan.id, path="x", posts=0, size=2, sha256="", expires_at=utcnow())
    db.session.add(archive)
    db.session.commit()
    faults, sent = [DatabaseUnavailable("SELECT", {}, Exception("the connection was cut"))], []

    def build_mail(user: User, archive: Archive) -> str:
        if faults:
            raise faults.pop()
        return f"to {user.username}"

    monkeypatch.setattr("microblog.exports.tasks.archive_email", build_mail)
    monkeypatch.setattr("microblog.exports.tasks.deliver", lambda task, message: sent.append(message))

    outcome = email_export.apply(args=[{"archive_id": "a" * 36}])

    assert outcome.state == "SUCCESS"
    assert sent == ["to susan"]


@pytest.mark.both_databases
def test_connection_lost_after_delivery_is_no_failure(
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
def test_accepted_mail_is_not_resent_or_revoked(
    susan: User, worker: Worker, smtp_server: SmtpServer, redis_server: RedisServer, cancelled: bool, found_by: str
) -> None:
    susan.launch_task("export_posts", "Export")
    db.session.commit()
    job = ended(susan)
    assert len(smtp_server.messages) == 1
    accepted = dict(job.steps[1].result or {})

    # Simulate a worker that died between the server's 250 and storing the result: the row is still STARTED.
    redis_server.client.delete(redis_server.key(f"celery-task-meta-{job.steps[1].id}"))
    values: dict[str, Any] = {"state": "STARTED", "result": None, "finished_at": None, "lease_expires_at": utcnow()}
    values |= {"cancel_requested_at": utcnow() if cancelled else None, "worker": "gone@tests"}  # so no worker renews it
    db.session.execute(sa.update(type(job.root)).where(type(job.root).id == job.steps[1].id).values(values))
    db.session.commit()

    if found_by == "reconcile":
        assert reconcile_all() == 1
    else:
        Signature.from_dict(job.steps[1].signature).apply_async((job.steps[0].result,))

    assert ended(susan).state == "SUCCESS"
    assert only_job(susan).steps[1].result == accepted
    assert len(smtp_server.messages) == 1


@pytest.mark.exhaustive
def test_stop_of_process_group_does_not_repeat_a_mail(
    susan: User, make_worker: Callable[..., Worker], smtp_server: SmtpServer
) -> None:
    """systemd, Heroku and shells send SIGTERM to all processes, and it kills those that run tasks."""
    worker = make_worker(concurrency=1)
    smtp_server.on_data = lambda port: worker.send_signal(signal.SIGTERM) if not smtp_server.messages else None
    susan.launch_task("export_posts", "Export")
    db.session.commit()

    wait_for(lambda: worker.process.poll() is not None, what="the worker has ended")
    make_worker(concurrency=1)

    wait_for(lambda: reconcile_all() * 0 or only_job(susan).state == "SUCCESS", what="the job is taken over")
    assert only_job(susan).current.crashes == 0
    assert len(smtp_server.messages) == 1


@pytest.mark.exhaustive
def test_cold_stop_ends_the_process_that_sends_before_another_sends(
    susan: User, make_worker: Callable[..., Worker], smtp_server: SmtpServer
) -> None:
    """The task is released at once, so that its process must not go on."""
    smtp_server.held.add("MAIL")
    stopping = make_worker(concurrency=1)
    susan.launch_task("export_posts", "Export")
    db.session.commit()
    wait_for(lambda: smtp_server.sessions_held == 1, what="the worker hands over the mail")

    os.kill(stopping.process.pid, signal.SIGQUIT)
    make_worker(concurrency=1, RECONCILE_INTERVAL="0.2")
    wait_for(lambda: smtp_server.sessions_held == 2, what="another worker takes over")
    smtp_server.held.clear()

    wait_for(lambda: only_job(susan).state == "SUCCESS", what="the mail is sent")
    wait_for(lambda: stopping.process.poll() is not None, what="the worker has ended")
    assert only_job(susan).current.crashes == 0
    assert len(smtp_server.messages) == 1
