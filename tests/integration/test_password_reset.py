"""Password reset: by a mailed link, without revealing whether an address has an account."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient

from microblog import logs
from microblog.accounts import tokens
from microblog.accounts.models import User
from microblog.accounts.services import (
    RESET_EMAIL_TASK,
    is_reset_pending,
    replace_password,
    request_password_reset,
)
from microblog.accounts.tasks import email_password_reset
from microblog.api.models import ApiToken
from microblog.extensions import db
from microblog.taskqueue.models import Task
from tests.support.clients import accepts_password, without_csrf_tokens
from tests.support.databases import recorded_statements
from tests.support.links import link_in
from tests.support.servers import RedisServer, Worker, wait_for
from tests.support.smtp import SmtpServer

REQUEST_PATH = "/auth/reset_password_request"
CONFIRMATION = "If there is an account with this address, a mail with a link is on its way. The link works for 1 hour."
NEW_PASSWORD = "horse-bird-cow"


def reset_token(user: User) -> str:
    return tokens.password_reset_url(user).rpartition("/")[2]


def set_password(client: FlaskClient, token: str, password: str = NEW_PASSWORD) -> Any:
    fields = {"password": password, "password2": password}
    return client.post(f"/auth/reset_password/{token}", data=fields, follow_redirects=True)


def jobs() -> list[Task]:
    db.session.rollback()
    return list(db.session.scalars(sa.select(Task).where(Task.name == RESET_EMAIL_TASK).order_by(Task.created_at)))


@contextmanager
def log_lines() -> Iterator[io.StringIO]:
    """The log that is written inside the block."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.Formatter())
    logging.getLogger("microblog").addHandler(handler)
    try:
        yield stream
    finally:
        logging.getLogger("microblog").removeHandler(handler)


def test_reset_link_sets_password_and_ends_sessions(
    app: Flask,
    susan: User,
    client: FlaskClient,
    signed_in: Callable[..., FlaskClient],
    smtp_server: SmtpServer,
    worker: Worker,
) -> None:
    other_browser = signed_in(susan)
    ApiToken.issue(susan, timedelta(days=1))
    db.session.commit()

    with log_lines() as log:
        assert (
            CONFIRMATION in client.post(REQUEST_PATH, data={"email": "Susan@Example.com"}, follow_redirects=True).text
        )
        wait_for(lambda: [job.state for job in jobs()] == ["SUCCESS"], what="the mail is sent")
        [message] = smtp_server.messages
        path = link_in(message)
        page = client.get(path)
        done = set_password(client, path.rpartition("/")[2])

    assert message["To"] == "susan@example.com"
    assert message["Subject"] == "[Microblog] Set a new password"
    assert "For the account susan." in page.text
    assert page.headers["Cache-Control"] == "no-store"
    assert "Your new password is set." in done.text
    assert other_browser.get("/").status_code == 302
    assert db.session.scalars(sa.select(ApiToken)).all() == []
    assert not accepts_password("cat-dog-fish")
    assert accepts_password(NEW_PASSWORD)

    token = path.rpartition("/")[2]
    [job] = jobs()
    stored_job = json.dumps([job.signature, job.result, job.description, job.message])
    for text in (log.getvalue(), worker.text(), stored_job):
        assert token not in text
        assert "susan@example.com" not in text
    assert '"path": "/auth/reset_password/[token]"' in log.getvalue()


@pytest.mark.both_databases
def test_request_does_not_reveal_accounts(
    app: Flask, susan: User, redis_server: RedisServer, client: FlaskClient
) -> None:
    # Compares what is done instead of the time taken: the same statements, rows and messages.
    outcomes = []
    for address in ("nobody@example.com", "susan@example.com"):
        with recorded_statements() as statements:
            page = client.post(REQUEST_PATH, data={"email": address}, follow_redirects=True)
        sql = [statement.sql for statement in statements]
        outcomes.append(
            (sql, page.status_code, without_csrf_tokens(page.text), redis_server.waiting("mail"), len(jobs()))
        )

    (executed, *response, queued, rows), (known_executed, *known_response, known_queued, known_rows) = outcomes
    assert executed == known_executed
    assert response == known_response
    assert (queued, rows) == (1, 1)
    assert (known_queued, known_rows) == (2, 2)


def test_no_mail_without_active_account(susan: User, smtp_server: SmtpServer) -> None:
    user_id = susan.id
    db.session.execute(sa.update(User).values(deleted_at=susan.created_at))
    db.session.commit()

    for requested_id in (None, user_id):
        assert email_password_reset.apply(args=[requested_id]).result == {"message_id": None}
    assert smtp_server.messages == []


def test_reset_job_is_not_listed_for_user(
    susan: User, client: FlaskClient, signed_in: Callable[..., FlaskClient]
) -> None:
    client.post(REQUEST_PATH, data={"email": "susan@example.com"})

    [job] = jobs()
    assert job.user_id is None
    assert job.signature["args"] == [susan.id]
    assert job.id not in signed_in(susan).get("/tasks").text


@pytest.mark.both_databases
def test_oldest_pending_job_sends_the_mail(susan: User, make_user: Callable[..., User]) -> None:
    ben = make_user("ben")
    for address in ("susan@example.com", "susan@example.com", "ben@example.com"):
        request_password_reset(address)
    first, second, for_ben = jobs()

    assert [is_reset_pending(susan.id, job.id) for job in (first, second)] == [False, True]
    assert not is_reset_pending(ben.id, for_ben.id)

    db.session.execute(sa.update(Task).where(Task.id == first.id).values(state="FAILURE"))
    db.session.commit()
    assert not is_reset_pending(susan.id, second.id)


@pytest.mark.parametrize(
    "change",
    [
        lambda user: replace_password(user, "another-password"),
        lambda user: db.session.execute(sa.update(User).values(email="new@example.com")),
        lambda user: db.session.execute(sa.update(User).values(deleted_at=user.created_at)),
    ],
    ids=["password", "address", "deleted"],
)
def test_link_is_invalid_after_account_change(susan: User, client: FlaskClient, change: Callable[[User], Any]) -> None:
    token = reset_token(susan)
    assert client.get(f"/auth/reset_password/{token}").status_code == 200

    change(susan)
    db.session.commit()
    password_hash = susan.password_hash

    assert "This link does not work, or no longer" in set_password(client, token).text
    db.session.expire_all()
    assert susan.password_hash == password_hash


def test_link_works_once(susan: User, client: FlaskClient) -> None:
    token = reset_token(susan)

    assert "Your new password is set." in set_password(client, token).text

    assert "This link does not work, or no longer" in set_password(client, token, "yet-another").text
    assert accepts_password(NEW_PASSWORD)


@pytest.mark.both_databases
def test_concurrent_uses_of_link_set_password_once(susan: User) -> None:
    token = reset_token(susan)
    user = tokens.user_of_reset_token(token)
    db.session.expunge(user)
    assert replace_password(tokens.user_of_reset_token(token), NEW_PASSWORD)

    assert not replace_password(user, "too-late-too-late")

    assert accepts_password(NEW_PASSWORD)


def test_link_expires(app: Flask, susan: User, client: FlaskClient) -> None:
    app.config["ACCOUNT_LINK_LIFETIME"] = -1
    token = reset_token(susan)

    assert "This link is too old" in set_password(client, token).text


def test_forged_link_is_refused(susan: User, make_user: Callable[..., User], client: FlaskClient) -> None:
    payload, _, rest = reset_token(susan).partition(".")
    foreign = reset_token(make_user("ben")).partition(".")[0]

    for token in ("x", "a/b", "%00", "%ED%A0%80", f"{foreign}.{rest}", f"{payload}.{rest}/", "é" * 50):
        assert "This link does not work" in client.get(f"/auth/reset_password/{token}", follow_redirects=True).text


def test_invalid_password_or_address_is_refused(susan: User, client: FlaskClient) -> None:
    assert "8 to 1024 characters" in set_password(client, reset_token(susan), "short").text
    for address, reason in (("", "Enter your email"), ("nobody", "no email address"), ("a\x00@b.org", "be kept")):
        response = client.post(REQUEST_PATH, data={"email": address})
        assert response.status_code == 422
        assert reason in response.text
    assert jobs() == []


def test_links_per_address_are_silently_limited(make_app: Callable[..., Flask], make_user: Callable[..., User]) -> None:
    make_user("susan")
    app = make_app(RATELIMIT_ENABLED=True, RATELIMIT_SIGN_IN="99 per hour", RATELIMIT_LINKS="2 per hour")
    client = app.test_client()

    spellings = (" SUSAN@example.com", "susan@ｅxample.com", "susan@ℯxample.com", "susan@example。com")
    for address in ("susan@example.com", "nobody@example.com", *spellings):
        for _ in range(3):
            assert CONFIRMATION in client.post(REQUEST_PATH, data={"email": address}, follow_redirects=True).text

    assert len(jobs()) == 4


def test_requests_per_client_are_limited(make_app: Callable[..., Flask]) -> None:
    app = make_app(RATELIMIT_ENABLED=True, RATELIMIT_STORAGE_URI="memory://", RATELIMIT_SIGN_IN="2 per hour")
    client = app.test_client()

    statuses = [client.post(REQUEST_PATH, data={"email": f"a{n}@example.com"}).status_code for n in range(3)]

    assert statuses == [302, 302, 429]
