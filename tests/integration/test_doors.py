"""What holds at every door of the house: a test walks all routes, those that somebody adds tomorrow among them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, NamedTuple

import pytest
from flask import Flask
from flask.testing import FlaskClient

from microblog.accounts.models import User
from microblog.accounts.services import follow_user
from microblog.api.models import ApiToken
from microblog.clock import utcnow
from microblog.exports.archive import current_storage
from microblog.exports.models import Archive
from microblog.extensions import db
from microblog.messages.services import send_message
from microblog.monitoring import health_routes
from microblog.notifications.services import notifications_of
from microblog.posts.services import create_post
from tests.support.factories import make_job

pytestmark = pytest.mark.parametrize("database", ["sqlite"])  # doors are closed before it is asked

READING = {"GET", "HEAD", "OPTIONS"}
# What strangers may open, and send.
PUBLIC = {
    ("GET", "accounts.login"),
    ("POST", "accounts.login"),
    ("GET", "accounts.register"),
    ("POST", "accounts.register"),
    ("POST", "accounts.logout"),
    ("POST", "preferences.switch"),
    ("GET", "reset.request_link"),
    ("POST", "reset.request_link"),
    ("GET", "reset.set_password"),
    ("POST", "reset.set_password"),
    ("GET", "account.confirm_address"),
    ("POST", "account.confirm_address"),
    ("GET", "monitoring.health"),
    ("GET", "monitoring.ready"),
    ("GET", "monitoring.metrics"),
    ("GET", "static"),
    ("GET", "bootstrap.static"),
    ("GET", "api_docs.static"),
    ("GET", "api_docs.index"),
    ("GET", "api-docs.openapi_json"),
    ("POST", "api_tokens.create"),  # with a password in place of a token
    ("POST", "api_users.create"),
}
ANYTHING = {"action": "cancel", "filename": "site.css"}  # what an argument may be where nothing else is said
#: Arguments that name a row which everybody may read.
READ_BY_ALL = {("GET", "posts.post"), ("GET", "translation.show"), ("POST", "translation.translate")}
READ_BY_ALL |= {("GET", "api_posts.show"), ("POST", "api_posts.translate")}


class Door(NamedTuple):
    """One thing that can be asked for."""

    method: str
    endpoint: str
    path: str

    @property
    def is_api(self) -> bool:
        return self.path.startswith("/api/")


def doors(app: Flask, **arguments: Any) -> Iterator[Door]:
    """Every route with every method, its `arguments` filled in."""
    adapter = app.url_map.bind("localhost")
    for rule in app.url_map.iter_rules():
        values = {name: arguments.get(name, ANYTHING.get(name, "1")) for name in rule.arguments}
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            yield Door(method, rule.endpoint, adapter.build(rule.endpoint, values, method))


def test_strangers_are_asked_to_sign_in_wherever_it_is_not_said_that_they_may_come(app: Flask) -> None:
    stranger = app.test_client()
    known = {door[:2] for door in doors(app)}
    assert known >= PUBLIC, "there is no such route any more"

    for door in doors(app):
        if door[:2] in PUBLIC:
            continue
        answer = stranger.open(door.path, method=door.method)
        if door.is_api:
            assert answer.status_code == 401, door
        else:
            assert (answer.status_code, answer.headers["Location"].partition("?")[0]) == (302, "/auth/login"), door


def test_a_page_from_elsewhere_can_change_nothing(
    app: Flask, susan: User, signed_in: Callable[..., FlaskClient]
) -> None:
    browser = signed_in(susan)
    app.config["WTF_CSRF_ENABLED"] = True

    for door in doors(app):
        if door.method in READING or (door.is_api and door[:2] in PUBLIC):
            continue
        answer = browser.open(door.path, method=door.method, data={"csrf_token": "forged"})
        # A page wants its own token, and the API one that no browser sends by itself: cookies count for nothing there.
        assert answer.status_code == (401 if door.is_api else 400), door
    assert browser.get("/account").status_code == 200, "nor was anybody signed out"


def test_what_is_made_for_one_reader_is_kept_by_nobody(
    app: Flask, susan: User, signed_in: Callable[..., FlaskClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_routes, "PING_TIMEOUT", 0.05)  # there is no worker to wait for
    browser = signed_in(susan)

    for door in doors(app, username="susan"):
        if door.method != "GET" or door.endpoint.endswith("static"):
            continue
        with browser.get(door.path, buffered=False) as answer:
            kept = answer.headers.get("Cache-Control", "")
        assert "no-store" in kept or "private, no-cache" in kept, (door, kept)


def test_a_row_is_its_owners_whatever_is_done_with_it(
    app: Flask, susan: User, ben: User, signed_in: Callable[..., FlaskClient]
) -> None:
    hers = belongings(susan, ben, app)
    token, _row = ApiToken.issue(ben, timedelta(days=1))
    db.session.commit()
    stranger = app.test_client()
    bens = signed_in(ben)
    named = {rule.endpoint: rule.arguments & hers.keys() for rule in app.url_map.iter_rules()}
    asked = [door for door in doors(app, **hers, username="susan") if named[door.endpoint]]
    unknown = {name for rule in app.url_map.iter_rules() for name in rule.arguments if name.endswith("_id")}
    assert unknown <= hers.keys(), "make a row of the new kind, for this test to ask for"

    for door in asked:
        if door[:2] in READ_BY_ALL:
            continue
        if door.is_api:
            answer = stranger.open(door.path, method=door.method, headers={"Authorization": f"Bearer {token}"})
        else:
            answer = bens.open(door.path, method=door.method)
        # Whoever may read a row is told that it is another's.
        assert answer.status_code == (403 if door[:2] == ("DELETE", "api_posts.delete") else 404), door
    db.session.rollback()
    assert len(asked) > len(READ_BY_ALL)
    browser = signed_in(susan)
    for path in (
        f"/post/{hers['post_id']}",
        f"/tasks/{hers['task_id']}/card",
        f"/exports/{hers['archive_id']}/download",
    ):
        assert browser.get(path).status_code == 200, path


def belongings(susan: User, ben: User, app: Flask) -> dict[str, Any]:
    """What is Susan's alone, by the argument of a route that names it; Ben has no part in it."""
    path, expires_at = "hers.json", utcnow() + timedelta(days=1)
    with current_storage().new(path) as file:
        file.write([b"{}"])
    db.session.add(Archive(id="hers", user_id=susan.id, path=path, posts=0, size=2, sha256="0", expires_at=expires_at))
    _token, api_token = ApiToken.issue(susan, timedelta(days=1))
    db.session.commit()
    follow_user(ben, susan)
    others = User(username="dave", email="dave@example.com", password_hash="!")
    db.session.add(others)
    db.session.commit()
    return {
        "archive_id": "hers",
        "token_id": api_token.id,
        "post_id": create_post(susan.id, "Mine").id,
        "message_id": send_message(susan, others, "For Dave").id,
        "notification_id": notifications_of(susan.id).items[0].id,
        "task_id": make_job(susan, "FAILURE", "FAILURE", finished_at=utcnow()),
    }
