"""Unexpected errors are mailed to the admins, each at most once a minute and without secrets."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from email.message import EmailMessage
from typing import Any, NoReturn

import pytest
import sqlalchemy as sa
from celery.signals import task_internal_error
from flask import Flask, request
from flask.testing import FlaskClient

from microblog.accounts.models import User
from microblog.clock import utcnow
from microblog.database import DatabaseUnavailable
from microblog.error_reports import handlers, throttle
from microblog.error_reports.models import ErrorReport
from microblog.error_reports.tasks import email_error_report, purge_error_reports
from microblog.extensions import db, redis_client
from microblog.taskqueue.errors import ClaimLost
from microblog.taskqueue.models import Task
from microblog.taskqueue.reconcile import reconcile_all
from tests.support.clients import sign_in
from tests.support.factories import rows_of, start
from tests.support.servers import RedisServer, Worker, wait_for
from tests.support.smtp import SmtpServer

ADMINS = ["root@example.com", "second@example.com"]
TOKEN = f"secret-token.{'x' * 40}"


@pytest.fixture
def faulty(app: Flask, make_app: Callable[..., Flask], redis_server: RedisServer) -> Iterator[Flask]:
    """An app with the error handling of production and a route that fails."""
    faulty = make_app(TESTING=False, ADMINS=ADMINS)

    def crash(token: str = "") -> NoReturn:
        db.session.add(User(username="half-done", email="half@example.com", password_hash=""))
        db.session.flush()
        raise RuntimeError(f"cannot go on with {token} after {len(request.form)} fields")

    faulty.add_url_rule("/crash/<token>", "crash", crash, methods=["GET", "POST"])
    yield faulty
    wait_for(lambda: idle(), what="no report is in progress")


def idle() -> bool:
    """Return True if no report is in progress in this process."""
    acquired = []
    while handlers._report_slots.acquire(blocking=False):
        acquired.append(True)
    for _ in acquired:
        handlers._report_slots.release()
    return len(acquired) == handlers.MAX_CONCURRENT_REPORTS


def crash(app: Flask, client: FlaskClient, **options: Any) -> None:
    """Request the route that fails, and wait until the report is processed."""
    assert client.post(f"/crash/{TOKEN}?q=secret-query", **options).status_code == 500
    wait_for(idle, what="the report is processed")


def reports() -> list[ErrorReport]:
    db.session.rollback()
    return list(db.session.scalars(sa.select(ErrorReport).order_by(ErrorReport.id)))


def text_of(message: EmailMessage) -> str:
    part = message.get_body(("plain",))
    assert part is not None
    return str(part.get_content())


def test_page_error_is_mailed_without_secrets(
    faulty: Flask, make_user: Callable[..., User], make_worker: Callable[..., Worker], smtp_server: SmtpServer
) -> None:
    make_worker(ADMINS=",".join(ADMINS))
    user = make_user("susan")
    browser = faulty.test_client()
    sign_in(browser)
    browser.set_cookie("other", "secret-cookie")

    crash(faulty, browser, data={"post": "secret-form"}, headers={"X-Api-Key": "secret-head", "X-Request-ID": "it-1"})

    wait_for(lambda: smtp_server.messages, what="the mail arrives")
    [message] = smtp_server.messages
    assert {address.strip() for address in str(message["To"]).split(",")} == set(ADMINS)
    assert message["Subject"].startswith("[Microblog] RuntimeError in ")
    text = text_of(message)
    for expected in ("builtins.RuntimeError", "POST /crash/[token]", "it-1", f"User id: {user.id}", "Traceback (most"):
        assert expected in text
    assert "secret" not in message.as_string()
    [report] = reports()
    [task] = db.session.scalars(sa.select(Task))
    assert task.signature["args"] == [report.id]
    assert "RuntimeError" not in json.dumps(task.signature)
    assert User.with_username("half-done") is None, "the failed transaction is not committed"


@pytest.mark.parametrize("redis_unavailable", [False, True])
@pytest.mark.exhaustive
def test_repeated_error_is_mailed_once_a_minute(
    faulty: Flask, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, redis_unavailable: bool
) -> None:
    browser = faulty.test_client()
    monkeypatch.setattr(throttle, "_local_admissions", type(throttle._local_admissions)())

    def crash_four_times_and_once_later() -> None:
        for _ in range(4):
            crash(faulty, browser)
        assert [report.suppressed for report in reports()] == [0]
        for key in [] if redis_unavailable else redis_client.connection.scan_iter("microblog:error:*:mailed"):
            assert 0 < redis_client.connection.ttl(key) <= throttle.PERIOD
            redis_client.connection.delete(key)  # as if the minute were over
        monkeypatch.setattr(throttle, "PERIOD", 0 if redis_unavailable else throttle.PERIOD)
        crash(faulty, browser)

    if redis_unavailable:
        with redis_server.stopped():
            crash_four_times_and_once_later()
    else:
        crash_four_times_and_once_later()

    assert [report.suppressed for report in reports()] == [0, 3]
    assert [task.published_at is None for task in db.session.scalars(sa.select(Task))] == [
        redis_unavailable,
        redis_unavailable,
    ]


def test_different_errors_are_reported_separately(faulty: Flask) -> None:
    def crash_elsewhere() -> NoReturn:
        raise RuntimeError

    faulty.add_url_rule("/elsewhere", "crash_elsewhere", crash_elsewhere)
    browser = faulty.test_client()
    crash(faulty, browser)
    browser.get("/elsewhere")
    wait_for(lambda: len(reports()) == 2, what="both are reported")


@pytest.mark.both_databases(each_run=False)
def test_report_is_counted_while_database_is_unavailable(faulty: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    browser = faulty.test_client()

    def fail(columns: Any) -> None:
        raise DatabaseUnavailable("INSERT", {}, OSError())

    with monkeypatch.context() as patch:
        patch.setattr(handlers, "_store", fail)
        crash(faulty, browser)
    assert reports() == []
    crash(faulty, browser)

    assert [report.suppressed for report in reports()] == [1]


def test_only_unexpected_task_error_is_mailed(
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
    assert "RuntimeError: secret detail" in text, "the message of the exception, as in the log"
    assert f"Task: fail, {failed}" in text
    assert "secret-argument" not in text
    [report] = reports()
    assert report.task_name == "fail"


@pytest.mark.both_databases
def test_crashing_task_is_reported_without_following_steps(faulty: Flask, make_user: Callable[..., User]) -> None:
    job_id = make_user("susan").launch_task("export_posts", "Export").id
    db.session.commit()
    claimed = {"state": "STARTED", "crashes": 2, "attempts": 3, "worker": "gone@host", "lease_expires_at": utcnow()}
    db.session.execute(sa.update(Task).where(Task.id == job_id).values(claimed))
    db.session.commit()

    assert reconcile_all() == 1
    wait_for(idle, what="the report is processed")

    assert {row.state for row in rows_of(job_id)} == {"FAILURE"}
    [report] = reports()
    assert report.exception == "microblog.taskqueue.errors.WorkerDied"
    assert (report.task_id, report.task_name, report.place) == (job_id, "export_posts", "export_posts")
    assert report.traceback == "The task was given up after 3 worker crashes; the last worker was gone@host."


@pytest.mark.exhaustive
def test_reports_delayed_by_redis_are_one_mail(
    faulty: Flask, redis_server: RedisServer, smtp_server: SmtpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = faulty.test_client()
    with redis_server.stopped():
        for _ in range(3):  # simulate three processes, each with its own counters
            monkeypatch.setattr(throttle, "_local_admissions", type(throttle._local_admissions)())
            crash(faulty, browser)
            crash(faulty, browser)
    waiting = [report.id for report in reports()]
    assert len(waiting) == 3

    outcomes = [email_error_report.apply(args=[report_id]).result for report_id in (*waiting, waiting[0])]

    assert [outcome["message_id"] is None for outcome in outcomes] == [False, True, True, False]
    assert len(smtp_server.messages) == 2, "only the report that was mailed is mailed again on a retry"
    crash(faulty, browser)
    assert reports()[-1].suppressed == 2


def state(task_id: str) -> str:
    db.session.rollback()
    return db.session.get_one(Task, task_id).state


def test_expired_reports_are_purged(app: Flask) -> None:
    columns = {"exception": "E", "place": "p", "traceback": "t"}
    lifetime = timedelta(seconds=app.config["ERROR_REPORT_LIFETIME"])
    db.session.add_all(
        [
            ErrorReport(created_at=utcnow() - lifetime - timedelta(1), **columns),
            ErrorReport(created_at=utcnow(), **columns),
        ]
    )
    db.session.commit()

    purge_error_reports.run()

    assert len(reports()) == 1


def test_no_report_without_admins(make_app: Callable[..., Flask]) -> None:
    app = make_app(TESTING=False)
    app.add_url_rule("/crash/<token>", "crash", lambda token: str(1 / 0), methods=["POST"])

    crash(app, app.test_client())

    assert reports() == []


def test_lost_claim_is_not_reported(faulty: Flask) -> None:
    noop = faulty.extensions["celery"].tasks["noop"]

    for error in (ClaimLost("it was taken over"), RuntimeError("reported")):
        task_internal_error.send(noop, task_id="1", exception=error)
        wait_for(idle, what="the report is processed")

    assert [report.exception for report in reports()] == ["builtins.RuntimeError"]
