"""One mail for each task that sends one, and for how long, and how often, it is tried."""

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
from microblog.mail.sending import LONGEST_PAUSE, deliver
from microblog.taskqueue import transitions
from microblog.taskqueue.interface import Cancelled, ClaimLost, JobError
from microblog.taskqueue.launch import launch
from microblog.taskqueue.models import Task
from microblog.taskqueue.transitions import Claim, CurrentRun
from tests.support.servers import Postgres
from tests.support.smtp import SmtpServer

pytestmark = pytest.mark.both_databases


@pytest.fixture
def held(app: Flask) -> Claim:
    """The claim on a task that is about to send a mail."""
    row = launch(email_export.s({"archive_id": "a"}))
    db.session.commit()
    return take(app, row.id, "one@host")


def take(app: Flask, task_id: str, worker: str) -> Claim:
    held = transitions.claim_task(app.extensions["celery"].executor, task_id, worker=worker, lease=30, max_crashes=3)
    assert held is not None
    return held


def attempt(held: Claim, to: str = "susan@example.com") -> Any:
    """Deliver a mail as the task that holds the claim: what came of it, or what was raised."""
    message = Message(subject="Hello", recipients=[to], body="Hello")
    facts = {"args": (), "kwargs": {}, "called_directly": False, "is_eager": False, "delivery_info": {}}
    email_export.push_request(id=held.task_id, hostname="one@host", run=CurrentRun(held), **facts)
    try:
        return deliver(email_export, message)
    except Exception as error:
        return error
    finally:
        email_export.pop_request()


def change(held: Claim, **columns: Any) -> None:
    db.session.execute(sa.update(Task).where(Task.id == held.task_id).values(**columns))
    db.session.commit()


def test_a_mail_whose_message_comes_twice_is_sent_once(
    app: Flask, make_user: Callable[..., User], smtp_server: SmtpServer
) -> None:
    user = make_user()
    archive = Archive(id="a" * 36, user_id=user.id, path="x", posts=0, size=1 << 40, sha256="", expires_at=utcnow())
    db.session.add(archive)
    db.session.commit()

    outcomes = [email_export.apply(args=[{"archive_id": "a" * 36}], task_id="t" * 36) for _ in range(2)]

    assert [outcome.state for outcome in outcomes] == ["SUCCESS", "SUCCESS"]
    assert outcomes[0].result == outcomes[1].result
    assert [message["Message-ID"] for message in smtp_server.messages] == [f"<{'t' * 36}@localhost>"]


@pytest.mark.parametrize("database", ["postgresql"])
def test_a_mail_that_finds_the_database_away_is_noted_when_it_is_back(
    held: Claim, smtp_server: SmtpServer, postgres_server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = str(db.engine.url.database)
    with contextlib.ExitStack() as away:
        # It goes when the server has the mail, and is back after the first pause.
        smtp_server.on_data = lambda port: away.enter_context(postgres_server.closed(name))
        pauses: list[float] = []

        def sleep(pause: float) -> None:
            pauses.append(pause)
            away.close()

        monkeypatch.setattr("microblog.mail.sending.time", SimpleNamespace(sleep=sleep))

        outcome = attempt(held)

    assert len(pauses) == 1
    assert outcome == {"message_id": f"<{held.task_id}@localhost>"}
    assert db.session.get(SentMail, held.task_id) is not None


def test_a_worker_whose_task_was_taken_over_sends_no_mail(app: Flask, held: Claim, smtp_server: SmtpServer) -> None:
    change(held, lease_expires_at=utcnow())
    take(app, held.task_id, "two@host")

    assert isinstance(attempt(held), ClaimLost)
    assert smtp_server.messages == []


def test_what_was_cancelled_before_the_server_had_it_is_not_mailed(held: Claim, smtp_server: SmtpServer) -> None:
    change(held, cancel_requested_at=utcnow())

    assert isinstance(attempt(held), Cancelled)
    assert smtp_server.messages == []


def test_a_mail_is_given_up_when_its_window_is_over(held: Claim, smtp_server: SmtpServer, app: Flask) -> None:
    smtp_server.answer = "451 4.3.0 later"
    held.started_at -= timedelta(seconds=app.config["MAIL_RETRY_WINDOW"])

    error = attempt(held)

    assert isinstance(error, JobError)
    assert str(error) == "It was given up: The mail server refused: 451 4.3.0 later"


def test_pauses_between_two_attempts_grow_and_are_never_quite_the_same(held: Claim, smtp_server: SmtpServer) -> None:
    smtp_server.answer = "451 4.3.0 later"

    def pauses(attempts: int) -> list[float]:
        change(held, attempts=attempts)
        held.attempt = attempts
        errors = [attempt(held) for _ in range(5)]
        assert all(isinstance(error, Retry) for error in errors)
        return [error.when for error in errors]

    first, second, last = pauses(1), pauses(3), pauses(20)

    assert max(first) < min(second)
    assert max(second) < min(last)
    assert max(last) <= LONGEST_PAUSE * 1.25 < 60
    assert len({*first, *second, *last}) == 15


@pytest.mark.parametrize("database", ["sqlite"])
@pytest.mark.parametrize("command", ["RCPT", "DATA"])
@pytest.mark.parametrize("code", [550, 450])
@pytest.mark.parametrize("to", ["susan@example.com", "susan@exämple.com"])
def test_of_a_refusal_is_kept_what_the_server_said_but_not_the_address(
    held: Claim, smtp_server: SmtpServer, monkeypatch: pytest.MonkeyPatch, command: str, code: int, to: str
) -> None:
    spelled = to.replace("exämple", "XN--exmple-cua").capitalize()

    async def refuse(*_: Any) -> str:
        return f"{code} 5.1.1 <{spelled}>: User unknown"

    monkeypatch.setattr(smtp_server, f"handle_{command}", refuse, raising=False)

    error = attempt(held, to)

    assert str(getattr(error, "exc", error)) == f"The mail server refused: {code} 5.1.1 <…>: User unknown"
    assert isinstance(error, JobError if code == 550 else Retry)
    assert "susan" not in "".join(traceback.format_exception(error)).lower()
