"""API tokens: how they are issued, what they allow, and when they end."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from microblog.accounts.models import User
from microblog.api.models import ApiToken
from microblog.api.schemas import TokenPageSchema, TokenSchema
from microblog.clock import utcnow
from microblog.extensions import db
from tests.support import not_none
from tests.support.api import Caller, assert_problem, caller_for

# The other tests of the API use tokens with both databases.
pytestmark = pytest.mark.parametrize("database", ["sqlite"])


def test_token_is_issued_for_password(app: Flask, client: FlaskClient, make_user: Callable[..., User]) -> None:
    make_user("susan", "cat-dog-fish")

    issued = client.post("/api/tokens", auth=("susan", "cat-dog-fish"))

    assert issued.status_code == 201
    assert TokenSchema().validate(issued.get_json()) == {}
    assert issued.headers["Cache-Control"] == "no-store"
    assert Caller(client, issued.get_json()["token"]).get("/api/tasks").get_json()["items"] == []


def test_only_token_hash_is_stored(app: Flask, caller: Caller) -> None:
    row = db.session.scalars(sa.select(ApiToken)).one()

    assert len(row.hash) == 64
    assert caller.token not in repr(vars(row))


def test_token_is_issued_for_email_address(client: FlaskClient, make_user: Callable[..., User]) -> None:
    make_user("susan", "cat-dog-fish")

    assert client.post("/api/tokens", auth=("susan@example.com", "cat-dog-fish")).status_code == 201


def test_wrong_password_looks_like_unknown_user(client: FlaskClient, make_user: Callable[..., User]) -> None:
    make_user("susan")

    wrong = client.post("/api/tokens", auth=("susan", "dog"))
    unknown = client.post("/api/tokens", auth=("nobody", "dog"))

    assert_problem(wrong, 401)
    assert wrong.headers["WWW-Authenticate"] == 'Basic realm="Microblog API"'
    assert unknown.data == wrong.data


def test_no_token_without_credentials(client: FlaskClient) -> None:
    for header in ("", "Basic", "Basic !", "Basic 4pyT", "Basic c3VzYW4=", "Bearer x", "Basic AAAAOgAA", "x"):
        response = client.post("/api/tokens", headers={"Authorization": header})

        assert_problem(response, 401)
        assert response.headers["WWW-Authenticate"].startswith("Basic ")


def test_overlong_password_is_not_hashed(
    client: FlaskClient, make_user: Callable[..., User], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_user("susan")
    monkeypatch.setattr(User, "with_credentials", lambda *_: pytest.fail("the password was hashed"))

    assert_problem(client.post("/api/tokens", auth=("susan", "x" * 5000)), 401)


def test_login_rate_limit_applies_to_tokens(make_app: Callable[..., Flask]) -> None:
    client = make_app(RATELIMIT_ENABLED=True, RATELIMIT_SIGN_IN="2 per hour").test_client()

    for _ in range(2):
        assert_problem(client.post("/api/tokens", auth=("susan", "guess")), 401)
    refused = client.post("/api/tokens", auth=("susan", "guess"))

    assert_problem(refused, 429)
    assert int(refused.headers["Retry-After"]) > 0


def test_request_without_valid_token_is_401(client: FlaskClient) -> None:
    for header in ("", "Bearer", "Bearer wrong", "Bearer é", "Bearer \0", "Basic c3VzYW46eA==", "x"):
        response = client.get("/api/tasks", headers={"Authorization": header})

        assert_problem(response, 401)
        assert response.headers["WWW-Authenticate"].startswith('Bearer realm="Microblog API"')


def test_expired_token_is_refused_and_later_deleted(app: Flask, caller: Caller) -> None:
    db.session.execute(sa.update(ApiToken).values(expires_at=utcnow()))
    db.session.commit()

    refused = caller.get("/api/tasks")
    caller_for(app, not_none(User.with_username("susan")))

    assert_problem(refused, 401)
    assert "error=invalid_token" in refused.headers["WWW-Authenticate"].replace('"', "")
    assert db.session.scalar(sa.select(sa.func.count()).select_from(ApiToken)) == 1


def test_revoking_a_token_leaves_other_tokens(app: Flask, caller: Caller) -> None:
    other = caller_for(app, not_none(User.with_username("susan")))

    assert caller.delete("/api/tokens").status_code == 204

    assert_problem(caller.get("/api/tasks"), 401)
    assert_problem(caller.delete("/api/tokens"), 401)
    assert other.get("/api/tasks").status_code == 200


def test_named_tokens_are_listed_and_revoked(client: FlaskClient, make_user: Callable[..., User]) -> None:
    susan = make_user("susan", "cat-dog-fish")
    other = caller_for(client.application, make_user("david"))
    issued = client.post("/api/tokens", auth=("susan", "cat-dog-fish"), json={"name": " backup "})
    first = Caller(client, issued.get_json()["token"])
    second = caller_for(client.application, susan)

    listed = first.get("/api/tokens")

    assert TokenPageSchema().validate(listed.get_json()) == {}
    assert {(one["name"], one["current"]) for one in listed.get_json()["items"]} == {("", False), ("backup", True)}
    assert first.token not in listed.text
    own = next(one["id"] for one in listed.get_json()["items"] if one["current"])
    assert_problem(other.delete(f"/api/tokens/{own}"), 404)
    assert second.delete(f"/api/tokens/{own}").status_code == 204
    assert_problem(first.get("/api/tokens"), 401)


def test_invalid_token_name_is_refused(client: FlaskClient, make_user: Callable[..., User]) -> None:
    make_user("susan", "cat-dog-fish")
    for name in ("x" * 65, "a\0b", 7, None):
        refused = client.post("/api/tokens", auth=("susan", "cat-dog-fish"), json={"name": name})

        assert list(assert_problem(refused, 422)["errors"]["json"]) == ["name"]


def test_token_limit_ignores_revoked_and_expired_tokens(
    app: Flask, client: FlaskClient, make_user: Callable[..., User]
) -> None:
    app.config["API_TOKENS_PER_USER"] = 3
    user = make_user("susan", "cat-dog-fish")
    first, *_others = (caller_for(app, user) for _ in range(3))

    def request_token() -> TestResponse:
        return client.post("/api/tokens", auth=("susan", "cat-dog-fish"))

    refused = assert_problem(request_token(), 409)
    first.delete("/api/tokens")
    after_revoking = request_token()
    at_limit = request_token()
    db.session.scalars(sa.select(ApiToken).limit(1)).one().expires_at = utcnow()
    db.session.commit()

    assert refused["detail"] == "You have as many tokens as one may have (3). Revoke one that you no longer need."
    assert [after_revoking.status_code, at_limit.status_code, request_token().status_code] == [201, 409, 201]
    caller_for(app, make_user("david"))


class TestPage:
    def test_token_is_created_shown_once_and_revoked(
        self, app: Flask, make_user: Callable[..., User], signed_in: Callable[..., FlaskClient]
    ) -> None:
        browser = signed_in(make_user("susan"))

        created = browser.post("/account/tokens", data={"name": "my <script>"})

        token = not_none(re.search(r'id="new-token" value="([^"]+)"', created.text))[1]
        assert created.status_code == 201
        assert created.headers["Cache-Control"] == "no-store"
        assert Caller(app.test_client(use_cookies=False), token).get("/api/users/me").get_json()["username"] == "susan"
        page = browser.get("/account/tokens").text
        assert token not in page
        assert "my &lt;script&gt;" in page
        browser.post(not_none(re.search(r'action="([^"]+/revoke)"', page))[1])
        assert_problem(Caller(app.test_client(use_cookies=False), token).get("/api/users/me"), 401)

    def test_revoking_foreign_token_is_404(
        self, caller: Caller, make_user: Callable[..., User], signed_in: Callable[..., FlaskClient]
    ) -> None:
        token_id = caller.get("/api/tokens").get_json()["items"][0]["id"]

        assert signed_in(make_user("david")).post(f"/account/tokens/{token_id}/revoke").status_code == 404
        assert caller.get("/api/tokens").status_code == 200

    def test_invalid_name_is_refused(
        self, make_user: Callable[..., User], signed_in: Callable[..., FlaskClient]
    ) -> None:
        browser = signed_in(make_user("susan"))
        for name in ("", "x" * 65, "a\0b"):
            assert browser.post("/account/tokens", data={"name": name}).status_code == 422
        assert db.session.scalar(sa.select(sa.func.count()).select_from(ApiToken)) == 0

    def test_token_over_limit_is_refused(
        self, app: Flask, make_user: Callable[..., User], signed_in: Callable[..., FlaskClient]
    ) -> None:
        app.config["API_TOKENS_PER_USER"] = 1
        browser = signed_in(make_user("susan"))
        browser.post("/account/tokens", data={"name": "backup"})

        refused = browser.post("/account/tokens", data={"name": "another"})

        assert refused.status_code == 422
        assert "You have as many tokens as one may have (1)." in refused.text

    def test_page_requires_login(self, client: FlaskClient) -> None:
        assert client.get("/account/tokens").status_code == client.post("/account/tokens").status_code == 302


def test_last_use_is_stored_once_a_minute(caller: Caller) -> None:
    def last_used_at() -> datetime:
        return not_none(db.session.scalars(sa.select(ApiToken.last_used_at)).one())

    caller.get("/api/tasks")
    first = last_used_at()
    caller.get("/api/tasks")
    second = last_used_at()
    db.session.execute(sa.update(ApiToken).values(last_used_at=first - timedelta(seconds=61)))
    db.session.commit()
    caller.get("/api/tasks")

    assert first == second
    assert last_used_at() >= first


def test_token_of_closed_account_is_refused(caller: Caller) -> None:
    db.session.execute(sa.update(User).values(deleted_at=utcnow()))
    db.session.commit()

    assert_problem(caller.get("/api/tasks"), 401)


def test_session_cookie_is_refused(make_user: Callable[..., User], signed_in: Callable[..., FlaskClient]) -> None:
    browser = signed_in(make_user("susan"))

    assert_problem(browser.get("/api/tasks"), 401)
    assert_problem(browser.post("/api/exports"), 401)


def test_csrf_token_is_not_required(make_app: Callable[..., Flask], make_user: Callable[..., User]) -> None:
    app = make_app(WTF_CSRF_ENABLED=True)

    assert caller_for(app, make_user("susan")).post("/api/exports").status_code == 202
