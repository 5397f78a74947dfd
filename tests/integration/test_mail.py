"""SMTP delivery by a task: one mail for each task, retries with growing pauses, and the retry window."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from celery.exceptions import Retry
from flask import Flask
from flask_mail import Message

from microblog.accounts.models import User
from microblog.clock import utcnow
from microblog.exports.models import Archive
from microblog.exports.tasks import email_export
from microblog.extensions import db
from microblog.mail.models import SentMail
from microblog.mail.sending import MAX_BACKOFF, deliver
from microblog.taskqueue import transitions
from microblog.taskqueue.errors import Cancelled, ClaimLost, JobError
from microblog.taskqueue.interface import Claim
from microblog.taskqueue.launch import launch
from microblog.taskqueue.models import Task
from tests.support.servers import Postgres
from tests.support.smtp import SmtpServer

pytestmark = pytest.mark.both_databases


@pytest.fixture
def claim(app: Flask) -> Claim:
    """The claim of a task that is about to send a mail."""
    row = launch(email_export.s({"archive_id": "a"}))
    db.session.commit()
    return claim_as(app, row.id, "one@host")


def claim_as(app: Flask, task_id: str, worker: str) -> Claim:
    claim = transitions.claim_task(app.extensions["celery"].executor, task_id, worker=worker, lease=30, max_crashes=3)
    assert claim is not None
    return claim


def try_delivery(claim: Claim, to: str = "susan@example.com") -> Any:
    """Deliver a mail as the task that holds the claim. Return the result, or the exception that was raised."""
    message = Message(subject="Hello", recipients=[to], body="Hello")
    request = {"args": (), "kwargs": {}, "called_directly": False, "is_eager": False, "delivery_info": {}}
    email_export.push_request(id=claim.task_id, hostname="one@host", **request)
    email_export.request.claim = claim
    try:
        return deliver(email_export, message)
    except Exception as error:
        return error
    finally:
        email_export.pop_request()


def change(claim: Claim, **columns: Any) -> None:
    db.session.execute(sa.update(Task).where(Task.id == claim.task_id).values(**columns))
    db.session.commit()


def test_duplicate_message_sends_one_mail(app: Flask, make_user: Callable[..., User], smtp_server: SmtpServer) -> None:
    user = make_user()
    archive = Archive(id="a" * 36, user_id=user.id, path="x", posts=0, size=1 << 40, sha256="", expires_at=utcnow())
    db.session.add(archive)
    db.session.commit()

    outcomes = [email_export.apply(args=[{"archive_id": "a" * 36}], task_id="t" * 36) for _ in range(2)]

    assert [outcome.state for outcome in outcomes] == ["SUCCESS", "SUCCESS"]
    assert outcomes[0].result == outcomes[1].result
    assert [message["Message-ID"] for message in smtp_server.messages] == [f"<{'t' * 36}@localhost>"]


@pytest.mark.parametrize("database", ["postgresql"])
def test_sent_mail_is_recorded_after_database_outage(
    claim: Claim, smtp_server: SmtpServer, postgres_server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = str(db.engine.url.database)
    with contextlib.ExitStack() as outage:
        # The database becomes unavailable once the server has the mail, and is available after the first pause.
        smtp_server.on_data = lambda port: outage.enter_context(postgres_server.closed(name))
        pauses: list[float] = []

        def sleep(pause: float) -> None:
            pauses.append(pause)
            outage.close()

        monkeypatch.setattr("microblog.mail.sending.time", SimpleNamespace(sleep=sleep))

        outcome = try_delivery(claim)

    assert len(pauses) == 1
    assert outcome == {"message_id": f"<{claim.task_id}@localhost>"}
    assert db.session.get(SentMail, claim.task_id) is not None


def test_no_mail_is_sent_after_takeover(app: Flask, claim: Claim, smtp_server: SmtpServer) -> None:
    change(claim, lease_expires_at=utcnow())
    claim_as(app, claim.task_id, "two@host")

    assert isinstance(try_delivery(claim), ClaimLost)
    assert smtp_server.messages == []


def test_no_mail_is_sent_after_cancellation(claim: Claim, smtp_server: SmtpServer) -> None:
    change(claim, cancel_requested_at=utcnow())

    assert isinstance(try_delivery(claim), Cancelled)
    assert smtp_server.messages == []


def test_delivery_fails_after_retry_window(claim: Claim, smtp_server: SmtpServer, app: Flask) -> None:
    smtp_server.answer = "451 4.3.0 later"
    claim.started_at -= timedelta(seconds=app.config["MAIL_RETRY_WINDOW"])

    error = try_delivery(claim)

    assert isinstance(error, JobError)
    assert str(error) == "It was given up: The mail server refused: 451 4.3.0 later"


def test_retry_pauses_grow_with_jitter(claim: Claim, smtp_server: SmtpServer) -> None:
    smtp_server.answer = "451 4.3.0 later"

    def pauses(attempts: int) -> list[float]:
        change(claim, attempts=attempts)
        claim.attempt = attempts
        errors = [try_delivery(claim) for _ in range(5)]
        assert all(isinstance(error, Retry) for error in errors)
        return [error.when for error in errors]

    first, second, last = pauses(1), pauses(3), pauses(20)

    assert max(first) < min(second)
    assert max(second) < min(last)
    assert max(last) <= MAX_BACKOFF * 1.25 < 60
    assert len({*first, *second, *last}) == 15


@pytest.mark.parametrize("database", ["sqlite"])
@pytest.mark.parametrize("command", ["RCPT", "DATA"])
@pytest.mark.parametrize("code", [550, 450])
@pytest.mark.parametrize("to", ["susan@example.com", "susan@exämple.com"])
def test_refusal_is_reported_without_address(
    claim: Claim, smtp_server: SmtpServer, monkeypatch: pytest.MonkeyPatch, command: str, code: int, to: str
) -> None:
    server_spelling = to.replace("exämple", "XN--exmple-cua").capitalize()

    async def refuse(*_: Any) -> str:
        return f"{code} 5.1.1 <{server_spelling}>: User unknown"

    monkeypatch.setattr(smtp_server, f"handle_{command}", refuse, raising=False)

    error = try_delivery(claim, to)

    assert str(getattr(error, "exc", error)) == f"The mail server refused: {code} 5.1.1 <…>: User unknown"
    assert isinstance(error, JobError if code == 550 else Retry)
    assert "susan" not in "".join(traceback.format_exception(error)).lower()
