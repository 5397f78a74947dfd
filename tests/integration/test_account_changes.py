"""/account: changing the password and the email address."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient

from microblog.accounts import tokens
from microblog.accounts.email_change import RETENTION
from microblog.accounts.emails import email_changed_email
from microblog.accounts.models import EmailChange, User
from microblog.accounts.services import replace_password
from microblog.accounts.tasks import email_confirm_address, purge_email_changes
from microblog.api.models import ApiToken
from microblog.clock import utcnow
from microblog.extensions import db
from microblog.taskqueue.errors import UserError
from microblog.taskqueue.models import Task
from tests.support.clients import accepts_password, sign_in
from tests.support.links import link_in
from tests.support.servers import Worker, wait_for
from tests.support.smtp import SmtpServer

OLD, NEW = "cat-dog-fish", "horse-bird-cow"

both_databases = pytest.mark.both_databases


def change_password(client: FlaskClient, current: str = OLD, new: str = NEW, again: str = NEW) -> Any:
    fields = {"current_password": current, "password": new, "password2": again}
    return client.post("/account/password", data=fields, follow_redirects=True)


def change_address(client: FlaskClient, address: str = "new@example.com", password: str = OLD) -> Any:
    fields = {"email": address, "current_password": password}
    return client.post("/account/email", data=fields, follow_redirects=True)


def end_mails() -> None:
    """Mark all tasks as successful, as if a worker had sent the mails."""
    db.session.execute(sa.update(Task).values(state="SUCCESS", finished_at=utcnow()))
    db.session.commit()


def confirmation_token(user: User) -> str:
    [change] = db.session.scalars(sa.select(EmailChange).where(EmailChange.user_id == user.id))
    return tokens.confirm_email_url(change).rpartition("/")[2]


def unfinished_tasks() -> int:
    db.session.rollback()
    return db.session.scalars(sa.select(sa.func.count()).select_from(Task).where(Task.unfinished)).one()


def address_of(user: User) -> str:
    db.session.rollback()
    return user.email


def test_password_change_ends_all_other_sessions(
    susan: User, signed_in: Callable[..., FlaskClient], client: FlaskClient
) -> None:
    other_browser = signed_in(susan)
    sign_in(client, remember_me="y")
    remembered = client.get_cookie("remember_token")
    assert remembered is not None
    browser = signed_in(susan)
    ApiToken.issue(susan, timedelta(days=1))
    db.session.commit()

    assert "Your new password is set." in change_password(browser).text

    client.delete_cookie("session")
    assert browser.get("/").status_code == 200
    assert other_browser.get("/").status_code == 302
    assert client.get("/").status_code == 302
    assert db.session.scalars(sa.select(ApiToken)).all() == []
    assert not accepts_password(OLD)
    assert accepts_password(NEW)


def test_remember_me_survives_password_change(susan: User, client: FlaskClient) -> None:
    sign_in(client, remember_me="y")
    change_password(client)

    client.delete_cookie("session")

    assert client.get("/").status_code == 200


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"current": "wrong"}, "This is not your password."),
        ({"current": ""}, "Enter your password."),
        ({"new": "short", "again": "short"}, "8 to 1024 characters"),
        ({"again": "something else"}, "The two passwords differ."),
    ],
)
def test_invalid_password_change_is_refused(
    susan: User, signed_in: Callable[..., FlaskClient], fields: dict[str, str], sentence: str
) -> None:
    response = change_password(signed_in(susan), **fields)

    assert response.status_code == 422
    assert sentence in response.text
    assert accepts_password(OLD)


def test_forged_user_id_in_session_is_refused(susan: User, make_user: Callable[..., User], client: FlaskClient) -> None:
    proof = make_user("ben").get_id().partition(".")[2]

    for forged in (str(susan.id), f"{susan.id}.", f"{susan.id}.{proof}", "x.y", ".", "", f"{susan.id}.é"):
        with client.session_transaction() as session:
            session["_user_id"] = forged
        assert client.get("/").status_code == 302, forged


def test_email_changes_once_link_is_confirmed(
    susan: User, signed_in: Callable[..., FlaskClient], client: FlaskClient, smtp_server: SmtpServer, worker: Worker
) -> None:
    browser = signed_in(susan)
    assert "A link is on its way to new@example.com." in change_address(browser).text
    assert "new@example.com has yet to be confirmed" in browser.get("/account").text
    wait_for(lambda: smtp_server.messages, what="the link is mailed")
    [confirmation] = smtp_server.messages
    path = link_in(confirmation)

    # Mail programs prefetch links, so a GET request must change nothing.
    assert "Is this your address?" in client.get(path).text
    assert address_of(susan) == "susan@example.com"
    client.post(path)
    wait_for(lambda: len(smtp_server.messages) == 2, what="the old address is notified")

    notice = smtp_server.messages[1]
    wait_for(lambda: unfinished_tasks() == 0, what="the results of the tasks are stored")
    assert (confirmation["To"], notice["To"]) == ("new@example.com", "susan@example.com")
    assert "new@example.com" not in notice.as_string()
    assert address_of(susan) == "new@example.com"
    assert "has yet to be confirmed" not in browser.get("/account").text
    assert "This link does not work" in browser.post(path, follow_redirects=True).text
    for task in db.session.scalars(sa.select(Task)):
        assert "@example.com" not in str((task.signature, task.result, task.description))


@pytest.mark.parametrize("database", ["sqlite"])
def test_change_notice_invites_reply_only_with_admins(app: Flask, susan: User) -> None:
    change = EmailChange(user=susan, old_address="susan@example.com", new_address="new@example.com")

    unanswerable = email_changed_email(change)
    app.config["ADMINS"] = ["root@example.com", "second@example.com"]
    answerable = email_changed_email(change)

    assert "Reply-To" not in unanswerable.as_string()
    assert "Reply-To: root@example.com" in answerable.as_string()
    for part in ("body", "html"):
        assert "tell those who run http://localhost at once" in getattr(unanswerable, part)
        assert "answer this mail" not in getattr(unanswerable, part)
        assert "answer this mail" in getattr(answerable, part)


def test_change_notice_cannot_be_cancelled_by_user(
    susan: User, signed_in: Callable[..., FlaskClient], client: FlaskClient
) -> None:
    thief = signed_in(susan)
    change_address(thief)
    client.post(f"/account/email/{confirmation_token(susan)}")

    [task] = db.session.scalars(sa.select(Task).where(Task.name == "email_changed_address"))
    assert task.id not in thief.get("/tasks").text
    assert thief.post(f"/tasks/{task.id}/cancel").status_code == 404


@pytest.mark.parametrize(
    ("address", "password", "sentence"),
    [
        ("ben@example.com", OLD, "There is an account with this address already."),
        ("Susan@example.com", OLD, "This is your address already."),
        ("nobody", OLD, "no email address"),
        ("a\x00@b.org", OLD, "cannot be kept"),
        ("new@example.com", "wrong", "This is not your password."),
    ],
)
@pytest.mark.both_databases(each_run=False)
def test_invalid_email_change_is_refused(
    susan: User,
    make_user: Callable[..., User],
    signed_in: Callable[..., FlaskClient],
    address: str,
    password: str,
    sentence: str,
) -> None:
    make_user("ben")

    response = change_address(signed_in(susan), address, password)

    assert response.status_code == 422
    assert sentence in response.text
    assert db.session.scalars(sa.select(Task)).all() == []


@both_databases
def test_confirmation_refused_if_address_taken_meanwhile(
    susan: User, make_user: Callable[..., User], signed_in: Callable[..., FlaskClient], client: FlaskClient
) -> None:
    change_address(signed_in(susan), "ben@example.com")
    token = confirmation_token(susan)
    make_user("ben")

    response = client.post(f"/account/email/{token}")
    page = signed_in(susan).get("/account")

    assert response.status_code == 302
    with client.session_transaction() as session:
        [(_category, sentence)] = session["_flashes"]
    assert sentence == "Somebody else has taken this address in the meantime. Choose another."
    assert "susan@example.com" in page.text


@both_databases
def test_second_email_change_invalidates_first_link(
    susan: User, signed_in: Callable[..., FlaskClient], client: FlaskClient
) -> None:
    browser = signed_in(susan)
    change_address(browser, "first@example.com")
    first = confirmation_token(susan)
    assert "is still on its way" in change_address(browser, "second@example.com").text
    end_mails()
    change_address(browser, "second@example.com")

    client.post(f"/account/email/{first}")
    assert address_of(susan) == "susan@example.com"
    client.post(f"/account/email/{confirmation_token(susan)}")
    assert address_of(susan) == "second@example.com"


def test_password_change_invalidates_confirmation_link(
    susan: User, signed_in: Callable[..., FlaskClient], client: FlaskClient
) -> None:
    change_address(signed_in(susan))
    token = confirmation_token(susan)
    replace_password(susan, NEW)

    client.post(f"/account/email/{token}")

    assert address_of(susan) == "susan@example.com"


@both_databases
@pytest.mark.parametrize(
    ("overtake", "address", "mails"),
    [
        (lambda client, token: client.post(f"/account/email/{token}"), "new@example.com", 1),
        (lambda client, token: change_password(client), "susan@example.com", 0),
    ],
    ids=["by a second click", "by a new password"],
)
def test_overtaken_confirmation_changes_and_mails_nothing(
    susan: User,
    signed_in: Callable[..., FlaskClient],
    client: FlaskClient,
    monkeypatch: pytest.MonkeyPatch,
    overtake: Callable[[FlaskClient, str], Any],
    address: str,
    mails: int,
) -> None:
    browser = signed_in(susan)
    change_address(browser)
    token = confirmation_token(susan)
    read = tokens.email_change_of_token

    def overtaken(token: str) -> EmailChange:
        change = read(token)
        monkeypatch.setattr(tokens, "email_change_of_token", read)
        overtake(browser, token)
        return change

    monkeypatch.setattr(tokens, "email_change_of_token", overtaken)
    client.post(f"/account/email/{token}")

    with client.session_transaction() as session:
        [(_category, sentence)] = session["_flashes"]
    assert sentence.startswith("This link does not work")
    assert address_of(susan) == address
    notices = sa.select(sa.func.count()).select_from(Task).where(Task.name == "email_changed_address")
    assert db.session.scalar(notices) == mails


def test_reset_and_confirmation_links_are_not_interchangeable(
    susan: User, signed_in: Callable[..., FlaskClient], client: FlaskClient
) -> None:
    change_address(signed_in(susan))
    reset = tokens.password_reset_url(susan).rpartition("/")[2]

    assert client.get(f"/account/email/{reset}").status_code == 302
    assert client.get(f"/auth/reset_password/{confirmation_token(susan)}").status_code == 302


def test_confirmation_link_expires(
    make_app: Callable[..., Flask], susan: User, signed_in: Callable[..., FlaskClient]
) -> None:
    change_address(signed_in(susan))
    late = make_app(ACCOUNT_LINK_LIFETIME=-1)

    assert late.test_client().post(f"/account/email/{confirmation_token(susan)}").location == "/account/email"
    assert address_of(susan) == "susan@example.com"


@both_databases
def test_expired_email_changes_are_purged(app: Flask, susan: User) -> None:
    lifetime = timedelta(seconds=app.config["ACCOUNT_LINK_LIFETIME"])
    for age in (lifetime + RETENTION + timedelta(seconds=1), lifetime + RETENTION - timedelta(hours=1)):
        values = {"old_address": "a@example.com", "new_address": "b@example.com"}
        db.session.add(EmailChange(user_id=susan.id, requested_at=utcnow() - age, **values))
    db.session.commit()

    purge_email_changes()

    [left] = db.session.scalars(sa.select(EmailChange))
    assert left.requested_at > utcnow() - lifetime - RETENTION


def test_account_pages_require_login(client: FlaskClient) -> None:
    for path in ("/account", "/account/password", "/account/email", "/account/delete", "/account/delete/confirm"):
        assert client.get(path).location.startswith("/auth/login")


@pytest.mark.parametrize("database", ["sqlite"])
def test_link_for_a_superseded_change_is_no_failure_of_the_system(app: Flask) -> None:
    outcome = email_confirm_address.apply(args=(1, 1))

    assert isinstance(outcome.result, UserError)
