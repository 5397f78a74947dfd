"""A forgotten password: who reads the account's mails sets a new one; nobody else learns anything."""

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
from microblog.accounts import password_reset, tokens
from microblog.accounts.models import User
from microblog.accounts.services import replace_password
from microblog.accounts.tasks import email_password_reset
from microblog.api.models import ApiToken
from microblog.extensions import db
from microblog.taskqueue.models import Task
from tests.support.clients import without_csrf_tokens
from tests.support.links import link_in
from tests.support.servers import RedisServer, Worker, wait_for
from tests.support.smtp import SmtpServer

ASK = "/auth/reset_password_request"
SAID = "If there is an account with this address, a mail with a link is on its way. The link works for 1 hour."
NEW = "horse-bird-cow"


def token_for(user: User) -> str:
    return tokens.password_reset_url(user).rpartition("/")[2]


def set_password(client: FlaskClient, token: str, password: str = NEW) -> Any:
    fields = {"password": password, "password2": password}
    return client.post(f"/auth/reset_password/{token}", data=fields, follow_redirects=True)


def signs_in_with(password: str) -> bool:
    db.session.rollback()
    return User.with_credentials("susan", password) is not None


def jobs() -> list[Task]:
    db.session.rollback()
    return list(db.session.scalars(sa.select(Task).where(Task.name == password_reset.TASK).order_by(Task.created_at)))


@contextmanager
def statements() -> Iterator[list[str]]:
    """What the database is told meanwhile."""
    told: list[str] = []

    def hear(connection: Any, cursor: Any, statement: str, *details: Any) -> None:
        told.append(statement)

    sa.event.listen(sa.Engine, "before_cursor_execute", hear)
    try:
        yield told
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", hear)


@contextmanager
def log_lines() -> Iterator[io.StringIO]:
    """The log as it is written meanwhile."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.Formatter())
    logging.getLogger("microblog").addHandler(handler)
    try:
        yield stream
    finally:
        logging.getLogger("microblog").removeHandler(handler)


def test_the_link_in_the_mail_sets_a_new_password_and_ends_what_the_old_one_opened(
    app: Flask,
    susan: User,
    client: FlaskClient,
    signed_in: Callable[..., FlaskClient],
    smtp_server: SmtpServer,
    worker: Worker,
) -> None:
    elsewhere = signed_in(susan)
    ApiToken.issue(susan, timedelta(days=1))
    db.session.commit()

    with log_lines() as log:
        assert SAID in client.post(ASK, data={"email": "Susan@Example.com"}, follow_redirects=True).text
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
    assert elsewhere.get("/").status_code == 302
    assert db.session.scalars(sa.select(ApiToken)).all() == []
    assert not signs_in_with("cat-dog-fish")
    assert signs_in_with(NEW)

    token = path.rpartition("/")[2]
    [job] = jobs()
    kept = json.dumps([job.signature, job.result, job.description, job.message])
    for written in (log.getvalue(), worker.text(), kept):
        assert token not in written
        assert "susan@example.com" not in written
    assert '"path": "/auth/reset_password/[token]"' in log.getvalue()


@pytest.mark.both_databases
def test_nobody_learns_whether_an_address_has_an_account(
    app: Flask, susan: User, redis_server: RedisServer, client: FlaskClient
) -> None:
    # Not measured in seconds, but in what is done: the same statements, the same rows, the same messages.
    seen = []
    for address in ("nobody@example.com", "susan@example.com"):
        with statements() as told:
            page = client.post(ASK, data={"email": address}, follow_redirects=True)
        seen.append(
            (told, page.status_code, without_csrf_tokens(page.text), redis_server.client.llen("mail"), len(jobs()))
        )

    (told, *answer, queued, rows), (told_of_susan, *answer_for_susan, queued_then, rows_then) = seen
    assert told == told_of_susan
    assert answer == answer_for_susan
    assert (queued, rows) == (1, 1)
    assert (queued_then, rows_then) == (2, 2)


def test_who_is_nobody_or_is_leaving_is_mailed_nothing(susan: User, smtp_server: SmtpServer) -> None:
    user_id = susan.id
    db.session.execute(sa.update(User).values(deleted_at=susan.created_at))
    db.session.commit()

    for asked in (None, user_id):
        assert email_password_reset.apply(args=[asked]).result == {"message_id": None}
    assert smtp_server.messages == []


def test_the_job_is_in_nobodys_list(susan: User, client: FlaskClient, signed_in: Callable[..., FlaskClient]) -> None:
    client.post(ASK, data={"email": "susan@example.com"})

    [job] = jobs()
    assert job.user_id is None
    assert job.signature["args"] == [susan.id]
    assert job.id not in signed_in(susan).get("/tasks").text


@pytest.mark.both_databases
def test_of_several_jobs_for_one_user_the_oldest_sends(susan: User, make_user: Callable[..., User]) -> None:
    ben = make_user("ben")
    for address in ("susan@example.com", "susan@example.com", "ben@example.com"):
        password_reset.request_password_reset(address)
    first, second, for_ben = jobs()

    assert [password_reset.is_reset_pending(susan.id, job.id) for job in (first, second)] == [False, True]
    assert not password_reset.is_reset_pending(ben.id, for_ben.id)

    db.session.execute(sa.update(Task).where(Task.id == first.id).values(state="FAILURE"))
    db.session.commit()
    assert not password_reset.is_reset_pending(susan.id, second.id)


@pytest.mark.parametrize(
    "change",
    [
        lambda user: replace_password(user, "another-password"),
        lambda user: db.session.execute(sa.update(User).values(email="new@example.com")),
        lambda user: db.session.execute(sa.update(User).values(deleted_at=user.created_at)),
    ],
    ids=["password", "address", "deleted"],
)
def test_a_link_dies_with_what_it_was_made_for(susan: User, client: FlaskClient, change: Callable[[User], Any]) -> None:
    token = token_for(susan)
    assert client.get(f"/auth/reset_password/{token}").status_code == 200

    change(susan)
    db.session.commit()
    kept = susan.password_hash

    assert "This link does not work, or no longer" in set_password(client, token).text
    db.session.expire_all()
    assert susan.password_hash == kept


def test_a_link_works_once(susan: User, client: FlaskClient) -> None:
    token = token_for(susan)

    assert "Your new password is set." in set_password(client, token).text

    assert "This link does not work, or no longer" in set_password(client, token, "yet-another").text
    assert signs_in_with(NEW)


@pytest.mark.both_databases
def test_of_two_who_use_a_link_in_the_same_moment_one_sets_the_password(susan: User) -> None:
    token = token_for(susan)
    user = tokens.user_of_reset_token(token)
    db.session.expunge(user)
    assert replace_password(tokens.user_of_reset_token(token), NEW)

    assert not replace_password(user, "too-late-too-late")

    assert signs_in_with(NEW)


def test_a_link_expires(app: Flask, susan: User, client: FlaskClient) -> None:
    app.config["ACCOUNT_LINK_LIFETIME"] = -1
    token = token_for(susan)

    assert "This link is too old" in set_password(client, token).text


def test_a_forged_link_is_refused_with_a_sentence(
    susan: User, make_user: Callable[..., User], client: FlaskClient
) -> None:
    payload, _, rest = token_for(susan).partition(".")
    foreign = token_for(make_user("ben")).partition(".")[0]

    for token in ("x", "a/b", "%00", "%ED%A0%80", f"{foreign}.{rest}", f"{payload}.{rest}/", "é" * 50):
        assert "This link does not work" in client.get(f"/auth/reset_password/{token}", follow_redirects=True).text


def test_a_bad_password_or_address_is_refused_with_a_sentence(susan: User, client: FlaskClient) -> None:
    assert "8 to 1024 characters" in set_password(client, token_for(susan), "short").text
    for address, sentence in (("", "Enter your email"), ("nobody", "no email address"), ("a\x00@b.org", "be kept")):
        response = client.post(ASK, data={"email": address})
        assert response.status_code == 422
        assert sentence in response.text
    assert jobs() == []


def test_an_address_is_mailed_no_more_than_a_few_links_and_nobody_is_told_so(
    make_app: Callable[..., Flask], make_user: Callable[..., User]
) -> None:
    make_user("susan")
    strict = make_app(RATELIMIT_ENABLED=True, RATELIMIT_SIGN_IN="99 per hour", RATELIMIT_LINKS="2 per hour")
    client = strict.test_client()

    spelled = (" SUSAN@example.com", "susan@ｅxample.com", "susan@ℯxample.com", "susan@example。com")
    for address in ("susan@example.com", "nobody@example.com", *spelled):
        for _ in range(3):
            assert SAID in client.post(ASK, data={"email": address}, follow_redirects=True).text

    assert len(jobs()) == 4


def test_a_client_may_not_ask_without_end(make_app: Callable[..., Flask]) -> None:
    strict = make_app(RATELIMIT_ENABLED=True, RATELIMIT_STORAGE_URI="memory://", RATELIMIT_SIGN_IN="2 per hour")
    client = strict.test_client()

    statuses = [client.post(ASK, data={"email": f"a{n}@example.com"}).status_code for n in range(3)]

    assert statuses == [302, 302, 429]
