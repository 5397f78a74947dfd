"""Errors that nobody expected are mailed to those whom it concerns: once a minute each, and nothing secret with it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from email.message import EmailMessage
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask, request
from flask.testing import FlaskClient

from microblog.accounts.models import User
from microblog.clock import utcnow
from microblog.error_reports import handlers, throttle
from microblog.error_reports.models import ErrorReport
from microblog.error_reports.tasks import email_error_report, purge_error_reports
from microblog.extensions import db, redis_client
from microblog.taskqueue.models import Task
from microblog.taskqueue.reconcile import reconcile_all
from tests.support.factories import rows_of, start
from tests.support.servers import RedisServer, Worker, wait_for
from tests.support.smtp import SmtpServer

ADMINS = ["root@example.com", "second@example.com"]
TOKEN = f"secret-token.{'x' * 40}"


@pytest.fixture
def faulty(app: Flask, make_app: Callable[..., Flask], redis_server: RedisServer) -> Iterator[Flask]:
    """An app as in production, with an address at which it fails."""
    faulty = make_app(TESTING=False, ADMINS=ADMINS)

    def crash(token: str = "") -> None:
        db.session.add(User(username="half-done", email="half@example.com", password_hash=""))
        db.session.flush()
        raise RuntimeError(f"cannot go on with {token} after {len(request.form)} fields")

    faulty.add_url_rule("/crash/<token>", "crash", crash, methods=["GET", "POST"])
    yield faulty
    wait_for(lambda: idle(), what="no report is under way")


def idle() -> bool:
    """Whether no report is being made in this process."""
    taken = []
    while handlers._room.acquire(blocking=False):
        taken.append(True)
    for _ in taken:
        handlers._room.release()
    return len(taken) == handlers.AT_ONCE


def crash(app: Flask, client: FlaskClient, **options: Any) -> None:
    """Fail, and wait until that has been seen to."""
    assert client.post(f"/crash/{TOKEN}?q=secret-query", **options).status_code == 500
    wait_for(idle, what="the report is made")


def reports() -> list[ErrorReport]:
    db.session.rollback()
    return list(db.session.scalars(sa.select(ErrorReport).order_by(ErrorReport.id)))


def text_of(message: EmailMessage) -> str:
    part = message.get_body(("plain",))
    assert part is not None
    return str(part.get_content())


def test_an_error_of_a_page_is_mailed_without_anything_that_was_secret(
    faulty: Flask, make_user: Callable[..., User], make_worker: Callable[..., Worker], smtp_server: SmtpServer
) -> None:
    make_worker(ADMINS=",".join(ADMINS))
    user = make_user("susan")
    browser = faulty.test_client()
    browser.post("/auth/login", data={"username": "susan", "password": "cat-dog-fish"})
    browser.set_cookie("other", "secret-cookie")

    crash(faulty, browser, data={"post": "secret-form"}, headers={"X-Api-Key": "secret-head", "X-Request-ID": "it-1"})

    wait_for(lambda: smtp_server.messages, what="the mail arrives")
    [message] = smtp_server.messages
    assert {address.strip() for address in str(message["To"]).split(",")} == set(ADMINS)
    assert message["Subject"].startswith("[Microblog] RuntimeError in ")
    text = text_of(message)
    for told in ("builtins.RuntimeError", "POST /crash/[token]", "it-1", f"User id: {user.id}", "Traceback (most"):
        assert told in text
    assert "secret" not in message.as_string()
    [report] = reports()
    [task] = db.session.scalars(sa.select(Task))
    assert task.signature["args"] == [report.id]
    assert "RuntimeError" not in json.dumps(task.signature)
    assert User.with_username("half-done") is None, "what had failed was not committed"


@pytest.mark.parametrize("away", [False, True])
@pytest.mark.exhaustive
def test_the_same_error_is_mailed_once_a_minute_and_the_next_mail_counts_the_others(
    faulty: Flask, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, away: bool
) -> None:
    browser = faulty.test_client()
    monkeypatch.setattr(throttle, "_here", type(throttle._here)())

    def four_times_and_once_later() -> None:
        for _ in range(4):
            crash(faulty, browser)
        assert [report.suppressed for report in reports()] == [0]
        for key in [] if away else redis_client.connection.scan_iter("microblog:error:*:mailed"):
            assert 0 < redis_client.connection.ttl(key) <= throttle.PERIOD
            redis_client.connection.delete(key)  # as if the minute were over
        monkeypatch.setattr(throttle, "PERIOD", 0 if away else throttle.PERIOD)
        crash(faulty, browser)

    if away:
        with redis_server.away():
            four_times_and_once_later()
    else:
        four_times_and_once_later()

    assert [report.suppressed for report in reports()] == [0, 3]
    assert [task.published_at is None for task in db.session.scalars(sa.select(Task))] == [away, away]


def test_another_error_has_a_mail_of_its_own(faulty: Flask) -> None:
    def crash_elsewhere() -> None:
        raise RuntimeError

    faulty.add_url_rule("/elsewhere", "crash_elsewhere", crash_elsewhere)
    browser = faulty.test_client()
    crash(faulty, browser)
    browser.get("/elsewhere")
    wait_for(lambda: len(reports()) == 2, what="both are reported")


def test_while_the_database_is_away_nothing_else_goes_wrong_and_what_was_not_told_is_counted(
    faulty: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = faulty.test_client()

    def away(columns: Any) -> None:
        raise sa.exc.OperationalError("INSERT", {}, OSError())

    with monkeypatch.context() as patch:
        patch.setattr(handlers, "_store", away)
        crash(faulty, browser)
    assert reports() == []
    crash(faulty, browser)

    assert [report.suppressed for report in reports()] == [1]


def test_an_error_of_a_task_is_mailed_but_neither_one_that_its_user_is_told_nor_one_of_the_mail(
    environment: dict[str, str], app: Flask, make_worker: Callable[..., Worker], smtp_server: SmtpServer
) -> None:
    from tests.support.tasks import fail, fail_politely

    make_worker(ADMINS=",".join(ADMINS))
    lost = start(email_error_report.s(0))  # there is no such report
    polite = start(fail_politely.s())
    wait_for(lambda: {state(lost), state(polite)} == {"FAILURE"}, what="both have failed")

    failed = start(fail.s("secret-argument"))

    wait_for(lambda: smtp_server.messages, what="the mail arrives")
    [message] = smtp_server.messages
    text = text_of(message)
    assert "RuntimeError: secret detail" in text, "the error's own words, as in the log"
    assert f"Task: fail, {failed}" in text
    assert "secret-argument" not in text
    [report] = reports()
    assert report.task_name == "fail"


@pytest.mark.both_databases
def test_a_task_that_took_its_workers_down_with_it_is_reported_and_the_steps_behind_it_are_not(
    faulty: Flask, make_user: Callable[..., User]
) -> None:
    job_id = make_user("susan").launch_task("export_posts", "Export").id
    db.session.commit()
    claimed = {"state": "STARTED", "crashes": 2, "attempts": 3, "worker": "gone@host", "lease_expires_at": utcnow()}
    db.session.execute(sa.update(Task).where(Task.id == job_id).values(claimed))
    db.session.commit()

    assert reconcile_all() == 1
    wait_for(idle, what="the report is made")

    assert {row.state for row in rows_of(job_id)} == {"FAILURE"}
    [report] = reports()
    assert report.exception == "microblog.taskqueue.interface.WorkerDied"
    assert (report.task_id, report.task_name, report.place) == (job_id, "export_posts", "export_posts")
    assert report.traceback == "It was given up after 3 workers died under it, the last of them gone@host."


@pytest.mark.exhaustive
def test_reports_that_waited_while_redis_was_away_are_one_mail_and_the_next_counts_the_others(
    faulty: Flask, redis_server: RedisServer, smtp_server: SmtpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = faulty.test_client()
    with redis_server.away():
        for _ in range(3):  # as many processes, each of which counts for itself
            monkeypatch.setattr(throttle, "_here", type(throttle._here)())
            crash(faulty, browser)
            crash(faulty, browser)
    waiting = [report.id for report in reports()]
    assert len(waiting) == 3

    outcomes = [email_error_report.apply(args=[report_id]).result for report_id in (*waiting, waiting[0])]

    assert [outcome["message_id"] is None for outcome in outcomes] == [False, True, True, False]
    assert len(smtp_server.messages) == 2, "only what was mailed may be tried again"
    crash(faulty, browser)
    assert reports()[-1].suppressed == 2


def state(task_id: str) -> str:
    db.session.rollback()
    return db.session.get_one(Task, task_id).state


def test_a_report_is_forgotten_when_its_time_is_over(app: Flask) -> None:
    facts = {"exception": "E", "place": "p", "traceback": "t"}
    lifetime = timedelta(seconds=app.config["ERROR_REPORT_LIFETIME"])
    db.session.add_all(
        [ErrorReport(created_at=utcnow() - lifetime - timedelta(1), **facts), ErrorReport(created_at=utcnow(), **facts)]
    )
    db.session.commit()

    purge_error_reports.run()

    assert len(reports()) == 1


def test_without_admins_nobody_is_told(make_app: Callable[..., Flask]) -> None:
    app = make_app(TESTING=False)
    app.add_url_rule("/crash/<token>", "crash", lambda token: 1 / 0, methods=["POST"])

    crash(app, app.test_client())

    assert reports() == []
