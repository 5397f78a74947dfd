"""Writing and reading posts."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from microblog.accounts.models import User
from microblog.extensions import db
from microblog.posts.models import Post
from tests.support import not_none
from tests.support.databases import recorded_statements
from tests.support.factories import write_posts

LISTS = ("/", "/explore", "/user/susan")


def stored_posts(app: Flask) -> list[str]:
    with app.app_context():
        return list(db.session.scalars(sa.select(Post.body).order_by(Post.id)))


def shown_posts(page: TestResponse) -> list[str]:
    return re.findall(r'<p dir="auto" class="post-body"[^>]*>(.*?)</p>', page.text, re.DOTALL)


def link(page: TestResponse, label: str) -> str:
    hrefs: list[str] = re.findall(rf'rel="{label}" href="([^"]+)"', page.text)
    [href] = hrefs
    return href.replace("&amp;", "&")


def test_post_appears_in_every_list(browser: FlaskClient) -> None:
    posted = browser.post("/", data={"post": "Hello, world"})

    assert posted.headers["Location"] == "/"
    for path in LISTS:
        assert shown_posts(browser.get(path)) == ["Hello, world"]


@pytest.mark.both_databases
def test_post_accepts_1_to_140_characters(app: Flask, browser: FlaskClient) -> None:
    expected = {
        "x": "x",
        "🚲" * 140: "🚲" * 140,
        "  around  ": "around",
        "one\r\ntwo": "one\ntwo",
        "\r\n".join("x" * 70): "\n".join("x" * 70),
        "e\u0301": "e\u0301",
        "\U0001fae9": "\U0001fae9",  # newer than the Unicode tables of some Python versions
    }

    for typed in expected:
        assert browser.post("/", data={"post": typed}).status_code == 302

    assert stored_posts(app) == list(expected.values())


@pytest.mark.both_databases
def test_invalid_post_is_refused_and_stays_in_form(app: Flask, browser: FlaskClient) -> None:
    for typed, reason in {
        "": "at least one character",
        " \n\t\u3000": "at least one character",
        "\u200b\u2800\u3164": "at least one character",
        "x" * 141: "at most 140 characters; this one has 141.",
        "🚲" * 141: "at most 140 characters; this one has 141.",
        "a\x00b": "characters that cannot be kept",
    }.items():
        response = browser.post("/", data={"post": typed})

        assert response.status_code == 422
        assert reason in response.text
        assert 'aria-invalid="true"' in response.text
        shown = re.search(r"<textarea[^>]*>\r?\n(.*?)</textarea>", response.text, re.DOTALL)
        assert not_none(shown)[1] == typed.replace("\x00", "\N{REPLACEMENT CHARACTER}")
    assert stored_posts(app) == []


def test_missing_post_field_is_refused(app: Flask, browser: FlaskClient) -> None:
    assert browser.post("/", data={}).status_code == 422


def test_post_is_escaped(browser: FlaskClient) -> None:
    browser.post("/", data={"post": "<script>alert(1)</script>"})

    page = browser.get("/")

    assert shown_posts(page) == ["&lt;script&gt;alert(1)&lt;/script&gt;"]


def test_times_are_utc_by_default(browser: FlaskClient, susan: User) -> None:
    write_posts(susan, ["Hello"])

    time = re.search(r'<time datetime="([^"]+)">([^<]+)</time>', browser.get("/explore").text)

    assert not_none(time).groups() == ("2026-01-01T00:00:00.000000Z", "Jan 1, 2026, 12:00:00\u202fAM UTC")


@pytest.mark.both_databases
def test_lists_are_paged_in_both_directions(app: Flask, browser: FlaskClient, susan: User) -> None:
    app.config["POSTS_PER_PAGE"] = 10
    bodies = [f"Post {n}" for n in range(25)]
    write_posts(susan, bodies)

    for path in LISTS:
        first = browser.get(path)
        second = browser.get(link(first, "next"))
        third = browser.get(link(second, "next"))

        shown = [shown_posts(page) for page in (first, second, third)]
        assert list(itertools.chain(*shown)) == bodies[::-1]
        assert 'rel="next"' not in third.text
        assert shown_posts(browser.get(link(third, "prev"))) == shown[1]
        assert 'rel="prev"' not in first.text


@pytest.mark.both_databases
def test_invalid_page_key_is_refused(browser: FlaskClient) -> None:
    for path, argument in itertools.product(LISTS, ("before", "after")):
        response = browser.get(path, query_string={argument: "nonsense"})

        assert response.status_code == 400
        assert "names no page" in response.text


def test_query_count_is_independent_of_authors(
    browser: FlaskClient, susan: User, make_user: Callable[..., User]
) -> None:
    write_posts(susan, ["Hello"])
    one_author = count_queries(browser, "/explore")
    for name in ("ann", "bob", "cid"):
        write_posts(make_user(name), ["Hello"] * 5)

    assert count_queries(browser, "/explore") == one_author


def count_queries(browser: FlaskClient, path: str) -> int:
    """Return the number of SQL statements that a page takes."""
    with recorded_statements() as statements:
        assert browser.get(path).status_code == 200
    return len(statements)


def test_lists_require_sign_in(client: FlaskClient) -> None:
    for path in LISTS:
        response = client.get(path)

        assert response.status_code == 302
        assert response.headers["Location"].startswith("/auth/login")


@pytest.mark.both_databases
def test_demo_command_creates_posts_in_development_only(app: Flask) -> None:
    run = app.test_cli_runner().invoke

    app.config["MICROBLOG_ENV"] = "production"
    refused = run(args=["demo"])
    assert refused.exit_code == 1
    assert "development only" in refused.output
    assert stored_posts(app) == []

    app.config["MICROBLOG_ENV"] = "development"
    assert run(args=["demo"]).exit_code == 0
    everything = stored_posts(app)
    with app.app_context():
        posts = list(db.session.scalars(sa.select(Post).where(Post.author.has(username="demo"))))
        times = [post.timestamp for post in posts]
        assert posts[0].author.check_password("demo")
    assert len(posts) == 250
    assert len(everything) > 250
    assert timedelta(days=300) < max(times) - min(times) < timedelta(days=366)
    assert max(times) <= datetime.now(UTC)

    assert run(args=["demo"]).exit_code == 0
    assert stored_posts(app) == everything


@pytest.mark.both_databases
def test_posts_have_lang_attribute(app: Flask, browser: FlaskClient, susan: User) -> None:
    browser.post("/", data={"post": "Кто знает хорошую пекарню у старого вокзала?"})
    browser.post("/", data={"post": "ok"})
    with app.app_context():
        bodies = ["Die Katze des Nachbarn ist bei uns eingezogen.", "La abuela tenía razón con lo de las cebollas."]
        db.session.execute(sa.insert(Post), [{"body": body, "user_id": susan.id} for body in bodies])
        db.session.commit()

        languages = list(db.session.scalars(sa.select(Post.language).order_by(Post.id)))

    assert languages == ["ru", None, "de", "es"]
    assert re.findall(r'<p dir="auto" class="post-body"( lang="[a-z]+")?>', browser.get("/explore").text) == [
        ' lang="es"',
        ' lang="de"',
        "",
        ' lang="ru"',
    ]
