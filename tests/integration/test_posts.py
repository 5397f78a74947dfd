"""Writing posts and reading them."""

from __future__ import annotations

import itertools
import re
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from microblog.extensions import db
from microblog.posts.models import Post

LISTS = ("/", "/explore", "/user/susan")


def kept_posts(app) -> list[str]:
    with app.app_context():
        return list(db.session.scalars(sa.select(Post.body).order_by(Post.id)))


def write_posts(app, author_id: int, count: int) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    with app.app_context():
        db.session.add_all(
            Post(body=f"post {n}.", timestamp=start + timedelta(hours=n), user_id=author_id) for n in range(count)
        )
        db.session.commit()


def shown_posts(page) -> list[str]:
    return re.findall(r'<p dir="auto" class="post-body"[^>]*>(.*?)</p>', page.text, re.DOTALL)


def link(page, label: str) -> str:
    (href,) = re.findall(rf'rel="{label}" href="([^"]+)"', page.text)
    return href.replace("&amp;", "&")


def test_a_post_is_on_the_home_page_in_explore_and_on_its_authors_profile(browser):
    posted = browser.post("/", data={"post": "Hello, world"})

    assert posted.headers["Location"] == "/"
    for path in LISTS:
        assert shown_posts(browser.get(path)) == ["Hello, world"]


@pytest.mark.both_databases
def test_a_post_has_1_to_140_characters_whatever_they_are(app, browser):
    typed_and_kept = {
        "x": "x",
        "🚲" * 140: "🚲" * 140,
        "  around  ": "around",
        "one\r\ntwo": "one\ntwo",
        "\r\n".join("x" * 70): "\n".join("x" * 70),
        "e\u0301": "e\u0301",
        "\U0001fae9": "\U0001fae9",  # newer than the tables of some Pythons
    }

    for typed in typed_and_kept:
        assert browser.post("/", data={"post": typed}).status_code == 302

    assert kept_posts(app) == list(typed_and_kept.values())


@pytest.mark.both_databases
def test_a_bad_post_is_refused_with_a_sentence_beside_what_was_typed(app, browser):
    for typed, sentence in {
        "": "at least one character",
        " \n\t\u3000": "at least one character",
        "\u200b\u2800\u3164": "at least one character",
        "x" * 141: "at most 140 characters; this one has 141.",
        "🚲" * 141: "at most 140 characters; this one has 141.",
        "a\x00b": "characters that cannot be kept",
    }.items():
        response = browser.post("/", data={"post": typed})

        assert response.status_code == 422
        assert sentence in response.text
        assert 'aria-invalid="true"' in response.text
        shown = re.search(r"<textarea[^>]*>\r?\n(.*?)</textarea>", response.text, re.DOTALL)
        assert shown[1] == typed.replace("\x00", "\N{REPLACEMENT CHARACTER}")
    assert kept_posts(app) == []


def test_a_form_without_the_field_is_an_empty_post(app, browser):
    assert browser.post("/", data={}).status_code == 422


def test_a_post_is_text_and_nothing_else(browser):
    browser.post("/", data={"post": "<script>alert(1)</script>"})

    page = browser.get("/")

    assert shown_posts(page) == ["&lt;script&gt;alert(1)&lt;/script&gt;"]


def test_times_are_utc_until_the_reader_says_otherwise(app, browser, susan):
    write_posts(app, susan.id, 1)

    time = re.search(r'<time datetime="([^"]+)">([^<]+)</time>', browser.get("/explore").text)

    assert time.groups() == ("2026-01-01T00:00:00.000000Z", "Jan 1, 2026, 12:00:00\u202fAM UTC")


@pytest.mark.both_databases
def test_every_list_is_read_page_by_page_and_back(app, browser, susan):
    app.config["POSTS_PER_PAGE"] = 10
    write_posts(app, susan.id, 25)

    for path in LISTS:
        first = browser.get(path)
        second = browser.get(link(first, "next"))
        third = browser.get(link(second, "next"))

        shown = [shown_posts(page) for page in (first, second, third)]
        assert list(itertools.chain(*shown)) == [f"post {n}." for n in reversed(range(25))]
        assert 'rel="next"' not in third.text
        assert shown_posts(browser.get(link(third, "prev"))) == shown[1]
        assert 'rel="prev"' not in first.text


@pytest.mark.both_databases
def test_a_page_key_that_is_none_is_refused_with_a_sentence(browser):
    for path, argument in itertools.product(LISTS, ("before", "after")):
        response = browser.get(path, query_string={argument: "nonsense"})

        assert response.status_code == 400
        assert "names no page" in response.text


def test_a_list_costs_the_same_queries_however_many_wrote_in_it(app, browser, susan, make_user):
    write_posts(app, susan.id, 1)
    alone = count_queries(app, browser, "/explore")
    for name in ("ann", "bob", "cid"):
        write_posts(app, make_user(name).id, 5)

    assert count_queries(app, browser, "/explore") == alone


def count_queries(app, browser, path: str) -> int:
    statements = []

    def note(connection, cursor, statement, *rest) -> None:
        statements.append(statement)

    with app.app_context():
        engine = db.engine
    sa.event.listen(engine, "before_cursor_execute", note)
    try:
        assert browser.get(path).status_code == 200
    finally:
        sa.event.remove(engine, "before_cursor_execute", note)
    return len(statements)


def test_reading_takes_an_account(client):
    for path in LISTS:
        response = client.get(path)

        assert response.status_code == 302
        assert response.headers["Location"].startswith("/auth/login")


@pytest.mark.both_databases
def test_the_demo_user_has_250_posts_of_the_past_year_in_development_only(app):
    run = app.test_cli_runner().invoke

    app.config["MICROBLOG_ENV"] = "production"
    refused = run(args=["demo"])
    assert refused.exit_code == 1
    assert "development only" in refused.output
    assert kept_posts(app) == []

    app.config["MICROBLOG_ENV"] = "development"
    assert run(args=["demo"]).exit_code == 0
    everything = kept_posts(app)
    with app.app_context():
        posts = list(db.session.scalars(sa.select(Post).where(Post.author.has(username="demo"))))
        times = [post.timestamp for post in posts]
        assert posts[0].author.check_password("demo")
    assert len(posts) == 250
    assert len(everything) > 250
    assert timedelta(days=300) < max(times) - min(times) < timedelta(days=366)
    assert max(times) <= datetime.now(UTC)

    assert run(args=["demo"]).exit_code == 0
    assert kept_posts(app) == everything


@pytest.mark.both_databases
def test_a_post_bears_its_language_for_whoever_reads_it_aloud(app, browser, susan):
    browser.post("/", data={"post": "Кто знает хорошую пекарню у старого вокзала?"})
    browser.post("/", data={"post": "ok"})
    with app.app_context():
        many = ["Die Katze des Nachbarn ist bei uns eingezogen.", "La abuela tenía razón con lo de las cebollas."]
        db.session.execute(sa.insert(Post), [{"body": body, "user_id": susan.id} for body in many])
        db.session.commit()

        kept = list(db.session.scalars(sa.select(Post.language).order_by(Post.id)))

    assert kept == ["ru", None, "de", "es"]
    assert re.findall(r'<p dir="auto" class="post-body"( lang="[a-z]+")?>', browser.get("/explore").text) == [
        ' lang="es"',
        ' lang="de"',
        "",
        ' lang="ru"',
    ]
