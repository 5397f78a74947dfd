"""SMTP delivery by a task: one mail for each task, the meaning of failures, and retries with growing pauses."""

from __future__ import annotations

import contextlib
import logging
import traceback
from collections.abc import Callable, Iterator
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
from microblog.smtp import RULES, Phase, rule_for
from microblog.taskqueue import transitions
from microblog.taskqueue.errors import Cancelled, ClaimLost, JobError
from microblog.taskqueue.interface import Claim
from microblog.taskqueue.launch import launch
from microblog.taskqueue.models import Task
from tests.support.servers import Postgres
from tests.support.smtp import SmtpServer

pytestmark = pytest.mark.both_databases

CREDENTIALS = {"username": "microblog", "password": "secret"}
OURS = "Our mail server refuses mails at the moment."
NO_EXTENSIONS = {"EHLO": "502 5.5.1 Unknown command"}
# Settings of the client (attributes of Flask-Mail's state), replies of the server, the phase that fails, the setting
# that the log names, and whether the failure is final. If it names no setting, the user reads the reply.
FAILURES: list[tuple[dict[str, Any], dict[str, str], Phase, str, bool]] = [
    ({"use_ssl": True}, {}, Phase.CONNECTION, "MAIL_USE_SSL", False),
    ({}, {"greeting": "554 5.3.2 Closed"}, Phase.GREETING, "MAIL_SERVER", False),
    ({}, {"greeting": "421 4.3.2 Busy"}, Phase.GREETING, "MAIL_SERVER", False),
    ({}, {"EHLO": "550 No name", "HELO": "550 No name"}, Phase.EHLO, "host name", False),
    ({"use_tls": True}, NO_EXTENSIONS, Phase.STARTTLS, "MAIL_USE_TLS", False),
    ({"use_tls": True}, {"STARTTLS": "554 5.7.0 No TLS"}, Phase.STARTTLS, "MAIL_USE_TLS", False),
    ({"use_tls": True}, {}, Phase.CERTIFICATE, "MAIL_CA_CERTS", False),
    (CREDENTIALS, NO_EXTENSIONS, Phase.AUTH, "MAIL_USE_TLS", False),
    (CREDENTIALS, {"AUTH": "535 5.7.8 Wrong password"}, Phase.AUTH, "MAIL_PASSWORD", False),
    (CREDENTIALS, {"AUTH": "538 5.7.11 Encryption required"}, Phase.AUTH, "MAIL_USE_TLS", False),
    ({}, {"MAIL": "530 5.7.0 Authentication required"}, Phase.MAIL, "MAIL_USERNAME", False),
    ({}, {"MAIL": "550 5.7.1 Sender refused"}, Phase.MAIL, "MAIL_DEFAULT_SENDER", False),
    ({}, {"MAIL": "552 5.3.4 Message too big"}, Phase.MAIL, "EXPORT_ATTACHMENT_LIMIT", False),
    ({}, {"MAIL": "451 4.3.0 Later"}, Phase.MAIL, "MAIL_DEFAULT_SENDER", False),
    ({}, {"RCPT": "530 5.7.0 Authentication required"}, Phase.RCPT, "MAIL_USERNAME", False),
    ({}, {"RCPT": "554 5.7.1 Relay access denied"}, Phase.RCPT, "MAIL_USERNAME", False),
    ({}, {"RCPT": "554 5.7.1 Delivery not authorized"}, Phase.RCPT, "MAIL_USERNAME", False),
    ({}, {"RCPT": "550 relay not permitted"}, Phase.RCPT, "MAIL_USERNAME", False),
    ({}, {"RCPT": "454 4.7.1 Relay access denied"}, Phase.RCPT, "MAIL_USERNAME", False),
    ({}, {"RCPT": "550 5.1.8 Sender address rejected"}, Phase.RCPT, "MAIL_DEFAULT_SENDER", False),
    ({}, {"RCPT": "452 4.5.3 Too many"}, Phase.RCPT, "quota", False),
    ({}, {"RCPT": "552 5.2.2 Mailbox full"}, Phase.RCPT, "", False),
    ({}, {"RCPT": "450 4.2.0 Greylisted"}, Phase.RCPT, "", False),
    ({}, {"RCPT": "550 5.1.1 User unknown"}, Phase.RCPT, "", True),
    ({}, {"RCPT": "550 <sender@example.com>: User unknown"}, Phase.RCPT, "", True),
    ({}, {"RCPT": "553 Invalid address"}, Phase.RCPT, "", True),
    ({}, {"DATA": "530 5.7.0 Authentication required"}, Phase.DATA, "MAIL_USERNAME", False),
    ({}, {"DATA": "552 5.3.4 Message too big"}, Phase.DATA, "EXPORT_ATTACHMENT_LIMIT", False),
    ({}, {"DATA": "452 4.3.1 Out of storage"}, Phase.DATA, "quota", False),
    ({}, {"DATA": "550 5.7.26 Unauthenticated"}, Phase.DATA, "MAIL_DEFAULT_SENDER", False),
    ({}, {"DATA": "554 Message rejected: the address is not verified"}, Phase.DATA, "MAIL_DEFAULT_SENDER", False),
    ({}, {"DATA": "451 4.3.0 Later"}, Phase.DATA, "", False),
    ({}, {"DATA": "554 5.7.1 This is spam"}, Phase.DATA, "", True),
]


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


@pytest.fixture(scope="module")
def tls_server() -> Iterator[SmtpServer]:
    """A server that offers STARTTLS, with a certificate that the application does not know."""
    server = SmtpServer(tls="MAIL_USE_TLS")
    server.start()
    yield server
    server.stop()


def delivery_errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    logged = (record for record in caplog.records if record.name == "microblog.mail.sending")
    return [record.getMessage() for record in logged if record.levelno == logging.ERROR]


@pytest.mark.parametrize("database", ["sqlite"])
@pytest.mark.parametrize(
    ("client", "replies", "phase", "setting", "final"),
    FAILURES,
    ids=[" ".join([phase, *replies.values()]) for _, replies, phase, *_ in FAILURES],
)
def test_phase_and_reply_decide(
    app: Flask,
    claim: Claim,
    tls_server: SmtpServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    client: dict[str, Any],
    replies: dict[str, str],
    phase: Phase,
    setting: str,
    final: bool,
) -> None:
    tls_server.reset()
    tls_server.refusals, tls_server.answer = replies, replies.get("DATA")
    for name, value in {"port": tls_server.port, **client}.items():
        monkeypatch.setattr(app.extensions["mail"], name, value)

    error = try_delivery(claim)

    assert isinstance(error, JobError if final else Retry)
    assert tls_server.messages == []
    sentence = str(getattr(error, "exc", error))
    if setting:
        [line] = delivery_errors(caplog)
        assert line.startswith(f"the mail server fails in the phase {phase} ({reply_in(phase, replies)}")
        assert setting in line
        unreachable = phase == Phase.CONNECTION
        assert sentence == ("The mail server cannot be reached." if unreachable else OURS)
    else:
        assert delivery_errors(caplog) == []
        refused = "The recipient's address was refused" if phase == Phase.RCPT else "The mail server refused"
        assert sentence == f"{refused}: {reply_in(phase, replies)}"


def reply_in(phase: Phase, replies: dict[str, str]) -> str:
    """Return the reply of the server in `phase`; empty if it does not refuse, but the client."""
    return replies.get(phase.partition(" ")[0], "")


def test_each_rule_is_tested() -> None:
    assert {rule_for(phase, reply_in(phase, replies)) for _, replies, phase, *_ in FAILURES} == set(RULES)


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

    refused = "The mail server refused" if command == "DATA" else "The recipient's address was refused"
    assert str(getattr(error, "exc", error)) == f"{refused}: {code} 5.1.1 <…>: User unknown"
    assert isinstance(error, JobError if code == 550 else Retry)
    assert "susan" not in "".join(traceback.format_exception(error)).lower()
