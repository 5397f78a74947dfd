"""Access rules of every route. The tests iterate over all routes, so that they cover new ones too."""

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
from microblog.exports.archive import archive_storage
from microblog.exports.models import Archive
from microblog.extensions import db
from microblog.messages.services import send_message
from microblog.monitoring import health_routes
from microblog.notifications.services import notifications_of
from microblog.posts.services import create_post
from tests.support.factories import make_job

pytestmark = pytest.mark.parametrize("database", ["sqlite"])  # access is refused before any query

READING = {"GET", "HEAD", "OPTIONS"}
# The endpoints that do not require login.
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
DEFAULTS = {"action": "cancel", "filename": "site.css"}  # default values of route arguments; of the others, 1
#: The endpoints whose arguments identify a row that every user may read.
READ_BY_ALL = {("GET", "posts.post"), ("GET", "translation.show"), ("POST", "translation.translate")}
READ_BY_ALL |= {("GET", "api_posts.show"), ("POST", "api_posts.translate")}


class RouteRequest(NamedTuple):
    """A request that can be made to a route."""

    method: str
    endpoint: str
    path: str

    @property
    def is_api(self) -> bool:
        return self.path.startswith("/api/")


def requests(app: Flask, **arguments: Any) -> Iterator[RouteRequest]:
    """Yield a request for each method of each route, with `arguments` filled in."""
    adapter = app.url_map.bind("localhost")
    for rule in app.url_map.iter_rules():
        values = {name: arguments.get(name, DEFAULTS.get(name, "1")) for name in rule.arguments}
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            yield RouteRequest(method, rule.endpoint, adapter.build(rule.endpoint, values, method))


def test_login_is_required_unless_public(app: Flask) -> None:
    anonymous = app.test_client()
    existing = {request[:2] for request in requests(app)}
    assert existing >= PUBLIC, "PUBLIC has an endpoint that no longer exists"

    for request in requests(app):
        if request[:2] in PUBLIC:
            continue
        answer = anonymous.open(request.path, method=request.method)
        if request.is_api:
            assert answer.status_code == 401, request
        else:
            assert (answer.status_code, answer.headers["Location"].partition("?")[0]) == (302, "/auth/login"), request


def test_changes_require_csrf_token(app: Flask, susan: User, signed_in: Callable[..., FlaskClient]) -> None:
    browser = signed_in(susan)
    app.config["WTF_CSRF_ENABLED"] = True

    for request in requests(app):
        if request.method in READING or (request.is_api and request[:2] in PUBLIC):
            continue
        answer = browser.open(request.path, method=request.method, data={"csrf_token": "forged"})
        # Pages require a CSRF token. The API ignores cookies and requires a token that no browser sends by itself.
        assert answer.status_code == (401 if request.is_api else 400), request
    assert browser.get("/account").status_code == 200, "the user is still signed in"


def test_personal_responses_are_not_cached(
    app: Flask, susan: User, signed_in: Callable[..., FlaskClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_routes, "PING_TIMEOUT", 0.05)  # there is no worker to wait for
    browser = signed_in(susan)

    for request in requests(app, username="susan"):
        if request.method != "GET" or request.endpoint.endswith("static"):
            continue
        with browser.get(request.path, buffered=False) as answer:
            cache_control = answer.headers.get("Cache-Control", "")
        assert "no-store" in cache_control or "private, no-cache" in cache_control, (request, cache_control)


def test_foreign_rows_are_refused_on_every_route(
    app: Flask, susan: User, ben: User, signed_in: Callable[..., FlaskClient]
) -> None:
    rows_of_susan = create_rows(susan, ben, app)
    token, _row = ApiToken.issue(ben, timedelta(days=1))
    db.session.commit()
    api_client = app.test_client()
    browser_of_ben = signed_in(ben)
    row_arguments = {rule.endpoint: rule.arguments & rows_of_susan.keys() for rule in app.url_map.iter_rules()}
    with_rows = [
        request for request in requests(app, **rows_of_susan, username="susan") if row_arguments[request.endpoint]
    ]
    unknown = {name for rule in app.url_map.iter_rules() for name in rule.arguments if name.endswith("_id")}
    assert unknown <= rows_of_susan.keys(), "create a row for the new argument in create_rows()"

    for request in with_rows:
        if request[:2] in READ_BY_ALL:
            continue
        if request.is_api:
            answer = api_client.open(request.path, method=request.method, headers={"Authorization": f"Bearer {token}"})
        else:
            answer = browser_of_ben.open(request.path, method=request.method)
        # The status is 403 only if the user may read the row.
        assert answer.status_code == (403 if request[:2] == ("DELETE", "api_posts.delete") else 404), request
    db.session.rollback()
    assert len(with_rows) > len(READ_BY_ALL)
    browser = signed_in(susan)
    for path in (
        f"/post/{rows_of_susan['post_id']}",
        f"/tasks/{rows_of_susan['task_id']}/card",
        f"/exports/{rows_of_susan['archive_id']}/download",
    ):
        assert browser.get(path).status_code == 200, path


def create_rows(susan: User, ben: User, app: Flask) -> dict[str, Any]:
    """Create rows that belong to Susan and not to Ben; return their ids by route argument."""
    path, expires_at = "hers.json", utcnow() + timedelta(days=1)
    with archive_storage().new(path) as file:
        file.write([b"{}"])
    db.session.add(Archive(id="hers", user_id=susan.id, path=path, posts=0, size=2, sha256="0", expires_at=expires_at))
    _token, api_token = ApiToken.issue(susan, timedelta(days=1))
    db.session.commit()
    follow_user(ben, susan)
    dave = User(username="dave", email="dave@example.com", password_hash="!")
    db.session.add(dave)
    db.session.commit()
    return {
        "archive_id": "hers",
        "token_id": api_token.id,
        "post_id": create_post(susan.id, "Mine").id,
        "message_id": send_message(susan, dave, "For Dave").id,
        "notification_id": notifications_of(susan.id).items[0].id,
        "task_id": make_job(susan, "FAILURE", "FAILURE", finished_at=utcnow()),
    }
