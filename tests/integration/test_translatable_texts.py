"""Every text that users see is translatable: the pseudolocale adds brackets, so a text without them is found."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient
from flask_babel import force_locale

from microblog.accounts import tokens
from microblog.accounts.emails import account_deleted_email, confirm_email, email_changed_email, password_reset_email
from microblog.accounts.models import EmailChange, User
from microblog.clock import utcnow
from microblog.error_reports.models import ErrorReport
from microblog.error_reports.tasks import report_email
from microblog.exports.emails import archive_email
from microblog.exports.models import Archive
from microblog.extensions import db
from microblog.imports.models import RejectedEntry, Upload
from microblog.messages.services import send_message
from microblog.notifications.services import notify
from microblog.posts.models import Post
from microblog.taskqueue import states
from microblog.taskqueue.models import Task
from tests.support import not_none, pseudolocale
from tests.support.api import caller_for

pytestmark = pytest.mark.parametrize("database", ["sqlite"])  # texts do not depend on the database

PASSWORD = "cat-dog-fish"
ANONYMOUS = ["/auth/login", "/auth/register", "/auth/reset_password_request", "/auth/reset_password/1", "/nothing"]
OWN = [
    *("/", "/explore", "/user/111", "/user/222", "/user/222/popup", "/user/111/followers", "/user/111/following"),
    *("/edit_profile", "/tasks", "/import", "/auth/logout"),
    *("/post/1", "/post/1/delete", "/posts/1/translation", "/post/999"),
    *("/search", "/search?q=333", "/search?q=4444", "/search?q=."),
    *("/messages", "/messages/sent", "/send_message/222", "/notifications/all"),
    *("/account", "/account/password", "/account/email", "/account/email/1", "/account/delete"),
    *("/account/delete/confirm", "/account/tokens"),
]
FORMS = {
    "/import": {},
    "/send_message/222": {"body": " "},
    "/account/password": {"current_password": "1", "password": "2", "password2": "3"},
    "/account/email": {"email": "4"},
    "/account/delete/confirm": {"username": "5", "current_password": "6"},
    "/account/tokens": {"name": "777"},
    "/": {"post": " "},
}
OPERATORS = ["/admin/tasks", "/admin/tasks/all/cancel", "/admin/tasks/all/retry", "/admin/status"]
IMPORTED = {
    **{"read": 9, "imported": 1, "known": 1, "left_out": {"boosts": 1, "private": 1, "other": 1}, "refused": 2},
    "without_media": 1,
    "refusals": [{"number": 1, "line": 2, "address": None, "reason": "3"}],
}


@pytest.fixture
def app(make_app: Callable[..., Flask], tmp_path: Path) -> Flask:
    """An app in the pseudolocale, in which every translatable text has brackets."""
    pseudolocale.write_catalog(tmp_path / "translations")
    return make_app(
        LANGUAGES=[pseudolocale.LANGUAGE],
        BABEL_TRANSLATION_DIRECTORIES=str(tmp_path / "translations"),
        TRANSLATE_URL="http://127.0.0.1:1",
    )


@pytest.fixture
def reader(make_user: Callable[..., User]) -> User:
    """A user with data of every kind. User content has no letters, so that every letter is the application's."""
    user, other = make_user("111"), make_user("222")
    for one in (user, other):
        one.email, one.last_seen_at = f"{one.username}@1.1", utcnow()
    db.session.add_all(Post(user_id=one.id, body="333", language="ru") for one in (user, other) for _ in range(30))
    db.session.add(EmailChange(user=user, old_address=user.email, new_address="112@1.1"))
    columns = {"state": "SUCCESS", "finished_at": utcnow(), "result": IMPORTED, "signature": {"args": [user.id, "1"]}}
    db.session.add(Upload(id="1", user_id=user.id, expires_at=utcnow()))
    db.session.add(Task(id="1", root_id="1", name="import_posts", queue="1", user_id=user.id, **columns))
    db.session.flush()
    db.session.add(RejectedEntry(upload_id="1", place=1, number=1, line=1, reason="555"))
    notify(user.id, "follower", str(other.id), actor_id=other.id)
    for state in ("SUCCESS", "FAILURE"):
        notify(user.id, "export_posts", state, payload={"state": state})
    db.session.commit()
    for sender, recipient in ((other, user), (user, other)):
        send_message(sender, recipient, "333")
    return user


def test_every_page_is_translatable(app: Flask, reader: User) -> None:
    browser = app.test_client()
    browser.environ_base["HTTP_ACCEPT_LANGUAGE"] = pseudolocale.LANGUAGE
    reset, confirm = tokens.password_reset_url(reader), tokens.confirm_email_url(db.session.get_one(EmailChange, 1))

    pages = fetch_pages(browser, [*ANONYMOUS, urlsplit(reset).path])
    pages["wrong"] = browser.post("/auth/login", data={"username": "111", "password": "444"}).text
    pages["empty"] = browser.post("/auth/register", data={}).text
    pages["reset"] = browser.post("/auth/reset_password_request", data={"email": "0@1.1"}, follow_redirects=True).text
    browser.post("/auth/login", data={"username": "111", "password": PASSWORD})
    pages["export"] = browser.post("/export_posts", follow_redirects=True).text
    pages["follow"] = browser.post("/follow/222", follow_redirects=True).text
    pages |= {f"{path}, sent": browser.post(path, data=data).text for path, data in FORMS.items()}
    task = db.session.scalars(sa.select(Task).where(Task.position == 0, Task.name == "export_posts")).one()
    for state in ("PENDING", "STARTED", "RETRY", "SUCCESS", "FAILURE", "REVOKED"):
        task.state, task.error = state, "555"
        db.session.commit()
        pages[state] = browser.get("/tasks").text
    reader.is_operator = True
    db.session.commit()
    pages |= fetch_pages(browser, [*OWN, urlsplit(confirm).path, *OPERATORS, f"/admin/tasks/{task.id}"])

    assert pseudolocale.hard_coded("<p title='x' data-labels='{\"one\": \"y\"}'>⟦a⟧ b</p>") == ["x", "y", "b"]
    assert [path for path, page in pages.items() if "⟦" not in page] == []
    assert {path: texts for path, page in pages.items() if (texts := untranslated_texts(app, page))} == {}


@pytest.mark.exhaustive
def test_every_mail_is_translatable(app: Flask, reader: User) -> None:
    reader.locale = pseudolocale.LANGUAGE
    expiry = datetime.now(UTC)
    archive = Archive(id="a", user_id=reader.id, path="", posts=2, size=1 << 40, sha256="", expires_at=expiry)
    change = db.session.get_one(EmailChange, 1)

    messages = [
        archive_email(reader, archive),
        password_reset_email(reader),
        confirm_email(change),
        email_changed_email(change),
        account_deleted_email(reader),
    ]
    columns = {"exception": "1.2", "place": "3", "traceback": "4", "created_at": expiry, "suppressed": 5}
    app.config["ADMINS"] = ["1@1.1"]
    with force_locale(pseudolocale.LANGUAGE):
        messages.append(email_changed_email(change))
        messages.append(report_email(ErrorReport(task_id="6", task_name="7", **columns)))
        messages.append(report_email(ErrorReport(method="6", path="7", **columns)))

    for message in messages:
        for text in map(not_none, (message.subject, message.body, message.html)):
            assert text.count("⟦") > 0
            assert pseudolocale.hard_coded(re.sub(r'http://[^\s<"]+', "", text)) == []


@pytest.mark.exhaustive
def test_every_api_error_is_translatable(app: Flask, reader: User) -> None:
    reader.locale = pseudolocale.LANGUAGE
    caller = caller_for(app, reader)
    bad_fields = {
        "/api/users": {"username": "1", "email": "2", "password": "3"},
        "/api/users#": {"username": "?" * 65, "email": 4, "password": None, "5": 6},
        "/api/users##": {"username": "111", "email": "111@1.1", "password": "\0" * 8},
        "/api/posts": {"body": " "},
        "/api/posts#": {"body": "7" * 1000},
        "/api/posts##": {},
        "/api/messages": {"to": "888", "message": " "},
        "/api/messages#": {"to": "111", "message": "9"},
        "/api/messages/read": {"ids": [0, "10", 2**80, None]},
        "/api/messages/read#": {"ids": []},
        "/api/messages/read##": {"ids": 11},
        "/api/notifications/read": [],
        "/api/tokens": {"name": "12" * 50},
    }

    responses = {path: caller.post(path, json=fields) for path, fields in bad_fields.items()}
    responses["patch"] = caller.patch("/api/users/me", json={"about_me": "1" * 300, "language": "13", "timezone": 14})
    responses["query"] = caller.get("/api/users?limit=0")
    responses["no number"] = caller.get("/api/users?limit=x")
    responses["search"] = caller.get("/api/search?q=" + "1" * 1000)
    assert {name: response.status_code for name, response in responses.items()} == dict.fromkeys(responses, 422)
    responses["gone"] = caller.get("/api/posts/999")
    responses["nobody"] = app.test_client().get("/api/tasks", headers={"Accept-Language": pseudolocale.LANGUAGE})

    problems = {name: response.get_json(force=True) for name, response in responses.items()}
    messages = {name: sentences([problem["detail"], problem.get("errors", [])]) for name, problem in problems.items()}
    assert [name for name, texts in messages.items() if len(texts) == 1] == ["gone", "nobody"]
    assert [text for texts in messages.values() for text in texts if pseudolocale.unbracketed(text)] == []


def sentences(errors: Any) -> list[str]:
    """Return the messages in `errors`, at any depth."""
    if isinstance(errors, str):
        return [errors]
    return [one for part in (errors.values() if isinstance(errors, dict) else errors) for one in sentences(part)]


def fetch_pages(browser: FlaskClient, paths: list[str]) -> dict[str, str]:
    """Return the HTML of each page, following redirects."""
    return {path: browser.get(path, follow_redirects=True).text for path in paths}


def untranslated_texts(app: Flask, page: str) -> list[str]:
    """Return the untranslated texts of `page`, except those that are identifiers: names, ids, states and units."""
    celery = app.extensions["celery"]
    codes = {*celery.tasks, *(queue.name for queue in celery.conf.task_queues)}
    codes |= {*states.UNFINISHED, *states.FINISHED, "UTC", "d", "h", "m", "s"}
    uuid = re.compile(r"[0-9a-f-]{36}")
    texts = pseudolocale.hard_coded(page)
    return [text for text in texts if not set(re.findall(r"[^\W\d]+", uuid.sub("", text))) <= codes]
