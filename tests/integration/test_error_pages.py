"""Errors as users and API clients get them: pages in the layout of the site, and problem JSON."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from microblog.accounts.models import User
from microblog.database import DatabaseUnavailable
from microblog.exports.emails import download_url
from microblog.exports.models import Archive
from microblog.extensions import db
from tests.support.api import Caller, assert_problem, caller_for
from tests.support.clients import sign_in

pytestmark = pytest.mark.parametrize("database", ["sqlite"])  # independent of the database

DRAFT = "half an hour's <work>"


@pytest.fixture
def production(app: Flask, make_app: Callable[..., Flask]) -> Flask:
    """An app with the error handling of production and with rate limits."""
    app = make_app(TESTING=False, RATELIMIT_ENABLED=True, RATELIMIT_EXPORT="1 per hour")
    assert isinstance(app, Flask)
    return app


@pytest.fixture
def susan(production: Flask, make_user: Callable[..., User]) -> User:
    return make_user("susan")


@pytest.fixture
def browser(production: Flask, susan: User) -> FlaskClient:
    browser = production.test_client()
    assert sign_in(browser).status_code == 302
    return browser


@pytest.fixture
def caller(production: Flask, susan: User) -> Caller:
    return caller_for(production, susan)


def assert_page(response: TestResponse, status: int, title: str) -> None:
    assert response.status_code == status, response.text
    assert response.mimetype == "text/html"
    assert f"<h1>{title}</h1>" in response.text
    assert "Microblog</title>" in response.text
    assert re.search(r'<p class="error-message">[^<]+\.</p>', response.text)
    assert "Traceback" not in response.text


def expired_link(user: User) -> str:
    end = datetime(9000, 1, 1, tzinfo=UTC)
    archive = Archive(id="a" * 36, user_id=user.id, path="x", posts=0, size=2, sha256="", expires_at=end)
    db.session.add(archive)
    db.session.commit()
    return download_url(archive).removeprefix("http://localhost")


def test_error_pages_have_layout_of_site(production: Flask, browser: FlaskClient, susan: User) -> None:
    link = expired_link(susan)
    production.config |= {"EXPORT_LINK_LIFETIME": -1, "MAX_CONTENT_LENGTH": 10_000}

    form = {"content_type": "application/x-www-form-urlencoded"}
    assert_page(browser.post("/", data=b"post=%ED%A0%80", **form), 400, "That did not work")
    assert_page(browser.get("/nothing"), 404, "Not found")
    assert_page(browser.get("/admin/tasks"), 404, "Not found")  # pages of operators do not exist for other users
    assert_page(browser.delete("/explore"), 405, "Not this way")
    assert_page(browser.get(link), 410, "Gone")
    assert_page(browser.post("/", data={"post": "x" * 20_000}), 413, "Too large")
    browser.post("/export_posts")
    assert_page(browser.post("/export_posts"), 429, "Too many attempts")


def test_api_errors_are_problem_json(production: Flask, caller: Caller) -> None:
    production.config["MAX_CONTENT_LENGTH"] = 10_000
    anonymous = production.test_client()

    assert_problem(caller.post("/api/exports", data=b"{", content_type="application/json"), 400)
    assert_problem(anonymous.get("/api/tasks"), 401)
    assert_problem(caller.get("/api/tasks/none"), 404)
    assert_problem(caller.put("/api/tasks"), 405)
    assert_problem(caller.post("/api/exports", data=b" " * 20_000, content_type="application/json"), 413)
    answers = [caller.post("/api/exports") for _ in range(8)]
    assert_problem(answers[-1], 429)


def test_internal_error_preserves_draft(browser: FlaskClient, caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: Any, **__: Any) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr("microblog.posts.services.Post", crash)
    monkeypatch.setattr("microblog.api.jobs.jobs_of_user", crash)

    page, problem = browser.post("/", data={"post": DRAFT}), caller.get("/api/tasks")

    assert_page(page, 500, "Something broke")
    assert "half an hour&#39;s &lt;work&gt;</textarea>" in page.text
    assert_problem(problem, 500)
    assert "secret detail" not in page.text + problem.text


def test_unavailable_database_is_503_and_preserves_draft(
    production: Flask, browser: FlaskClient, caller: Caller
) -> None:
    def fail(*_: Any) -> None:
        raise DatabaseUnavailable("SELECT 1", {}, OSError())

    with production.app_context():
        engine = db.engine
    sa.event.listen(engine, "before_cursor_execute", fail)
    try:
        page, problem = browser.post("/", data={"post": DRAFT}), caller.get("/api/tasks")
    finally:
        sa.event.remove(engine, "before_cursor_execute", fail)

    assert_page(page, 503, "Away for a moment")
    assert "half an hour&#39;s &lt;work&gt;</textarea>" in page.text
    assert_problem(problem, 503)
    assert int(page.headers["Retry-After"]) == int(problem.headers["Retry-After"]) > 0
