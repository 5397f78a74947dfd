"""API tokens under concurrent changes, on both databases because their locks differ."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient

from microblog.accounts.models import User
from microblog.api.models import ApiToken
from microblog.clock import utcnow
from microblog.extensions import db
from tests.conftest import hash_of
from tests.support.api import assert_problem, caller_for
from tests.support.servers import TIMEOUT

pytestmark = pytest.mark.both_databases


def test_token_revoked_during_request_is_refused(
    app: Flask, make_user: Callable[..., User], monkeypatch: pytest.MonkeyPatch
) -> None:
    susan = caller_for(app, make_user())
    find = ApiToken.find

    def found_and_revoked(token: str) -> ApiToken | None:
        row = find(token)
        with db.engine.begin() as connection:
            connection.execute(sa.delete(ApiToken))
        return row

    monkeypatch.setattr(ApiToken, "find", found_and_revoked)

    assert_problem(susan.get("/api/users/me"), 401)


@pytest.fixture
def change_before_issue(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that makes another connection change the user immediately before each token is issued."""
    issue = ApiToken.issue

    def change_before_issue(**change: Any) -> None:
        def issue_after_change(*arguments: Any) -> tuple[str, ApiToken]:
            with db.engine.begin() as connection:
                connection.execute(sa.update(User).values(**change))
            return issue(*arguments)

        monkeypatch.setattr(ApiToken, "issue", issue_after_change)

    return change_before_issue


@pytest.mark.parametrize("change", [{"password_hash": "another"}, {"deleted_at": utcnow()}], ids=["password", "closed"])
def test_no_token_if_account_changes_meanwhile(
    client: FlaskClient,
    make_user: Callable[..., User],
    signed_in: Callable[..., FlaskClient],
    change_before_issue: Callable[..., None],
    change: dict[str, Any],
) -> None:
    browser = signed_in(make_user("susan", "cat-dog-fish"))
    change_before_issue(**change)

    on_page = browser.post("/account/tokens", data={"name": "backup"})
    db.session.execute(sa.update(User).values(password_hash=hash_of("cat-dog-fish"), deleted_at=None))
    db.session.commit()
    by_program = client.post("/api/tokens", auth=("susan", "cat-dog-fish"))

    assert on_page.location.startswith("/auth/login")
    assert_problem(by_program, 401)
    assert db.session.scalar(sa.select(sa.func.count()).select_from(ApiToken)) == 0


def test_concurrent_requests_respect_token_limit(
    app: Flask, make_user: Callable[..., User], monkeypatch: pytest.MonkeyPatch
) -> None:
    app.config["API_TOKENS_PER_USER"] = 1
    make_user("susan", "cat-dog-fish")
    all_requested = threading.Barrier(4)
    issue, statuses = ApiToken.issue, []

    def issue_at_once(*arguments: Any) -> tuple[str, ApiToken]:
        all_requested.wait(timeout=TIMEOUT)
        return issue(*arguments)

    def request_token() -> None:
        statuses.append(app.test_client().post("/api/tokens", auth=("susan", "cat-dog-fish")).status_code)

    monkeypatch.setattr(ApiToken, "issue", issue_at_once)
    threads = [threading.Thread(target=request_token) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=TIMEOUT)

    assert sorted(statuses) == [201, 409, 409, 409]
    assert db.session.scalar(sa.select(sa.func.count()).select_from(ApiToken)) == 1
