"""A post is translated once for each language, and what goes wrong with the service is a sentence."""

from __future__ import annotations

import io
import logging
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from microblog.accounts.models import User
from microblog.extensions import db
from microblog.posts.models import Post
from microblog.posts.translation import libretranslate
from microblog.posts.translation.models import Translation
from tests.support.servers import PATIENCE, RedisServer, wait_for
from tests.support.translator import TranslationServer

NOBODY_LISTENS = "http://127.0.0.1:1"
KEY = "the-key-of-the-service"
RUSSIAN = "Кто знает хорошую пекарню у старого вокзала?"
ENGLISH = "Does anyone know a good bakery near the old station?"
AWAY, REFUSED = (503, "does not answer right now"), (502, "could not translate")
BAD_ANSWERS = [
    ((500, b'{"error": "boom"}'), AWAY),
    ((429, b'{"error": "Slowdown"}'), AWAY),
    ((400, b'{"error": "ru is not supported"}'), REFUSED),
    ((403, f'{{"error": "Invalid API key {KEY}"}}'.encode()), REFUSED),
    ((307, b""), REFUSED),
    ((200, b""), REFUSED),
    ((200, b"<html>Welcome</html>"), REFUSED),
    ((200, b"[]"), REFUSED),
    ((200, b'{"translatedText": ["no", "text"]}'), REFUSED),
    ((200, b'{"translatedText": " "}'), REFUSED),
    ((200, b'{"translatedText": "a\\u0000b"}'), REFUSED),
    ((200, b'{"translatedText": "' + b"x" * 2001 + b'"}'), REFUSED),
    ((200, b'{"translatedText": "\xff"}'), REFUSED),
]


@pytest.fixture(scope="module")
def running_service() -> Iterator[TranslationServer]:
    server = TranslationServer()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def service(running_service: TranslationServer) -> TranslationServer:
    running_service.reset()
    running_service.translations[RUSSIAN] = ENGLISH
    return running_service


@pytest.fixture
def app(app: Flask, service: TranslationServer, monkeypatch: pytest.MonkeyPatch) -> Flask:
    monkeypatch.setattr(libretranslate, "LANGUAGES_TIMEOUT", PATIENCE)
    app.config.update(TRANSLATE_URL=service.url, TRANSLATE_API_KEY=KEY, TRANSLATE_TIMEOUT=PATIENCE)
    return app


@pytest.fixture
def post(app: Flask, make_user: Callable[..., User]) -> Post:
    """A post in Russian."""
    post = Post(body=RUSSIAN, user_id=make_user("ivan").id)
    db.session.add(post)
    db.session.commit()
    return post


@pytest.fixture
def browser(post: Post, make_user: Callable[..., User], signed_in: Callable[..., FlaskClient]) -> FlaskClient:
    """A reader's, in English."""
    return signed_in(make_user("susan"))


def address(post: Post) -> str:
    return f"/posts/{post.id}/translation"


def ask(browser: FlaskClient, post: Post) -> TestResponse:
    return browser.post(address(post), follow_redirects=True)


def kept() -> list[tuple[str, str]]:
    db.session.rollback()
    return [(one.language, one.body) for one in db.session.scalars(sa.select(Translation))]


def test_a_post_in_another_language_is_translated_by_the_service(
    browser: FlaskClient, post: Post, service: TranslationServer
) -> None:
    assert "Translate from Russian" in browser.get("/explore").text

    page = ask(browser, post)

    assert page.status_code == 200
    assert f'<p dir="auto" class="post-body" lang="ru">{RUSSIAN}</p>' in page.text
    assert f'<p dir="auto" class="post-translation" lang="en">{ENGLISH}</p>' in page.text
    question = {"q": RUSSIAN, "source": "ru", "target": "en", "format": "text", "api_key": KEY}
    assert service.questions == [question]
    assert kept() == [("en", ENGLISH)]


def test_what_was_translated_once_is_not_asked_for_again(
    browser: FlaskClient, post: Post, service: TranslationServer
) -> None:
    for _reader in range(3):
        assert ENGLISH in ask(browser, post).text
    assert ENGLISH in browser.get(address(post)).text

    assert len(service.questions) == 1


@pytest.mark.both_databases
def test_readers_who_click_at_the_same_instant_ask_once(
    app: Flask, browser: FlaskClient, post: Post, service: TranslationServer, redis_server: RedisServer
) -> None:
    where, pages, cookie = address(post), list[TestResponse](), browser.get_cookie("session")
    assert cookie is not None

    def click() -> None:
        own = app.test_client(use_cookies=False)
        pages.append(own.post(where, headers={"Cookie": f"session={cookie.value}"}))

    readers = [threading.Thread(target=click) for _reader in range(6)]
    with service.silent():
        for reader in readers:
            reader.start()
        wait_for(lambda: service.questions, what="the first question")
    for reader in readers:
        reader.join()

    assert [page.status_code for page in pages] == [302] * 6
    assert len(service.questions) == 1
    assert kept() == [("en", ENGLISH)]
    assert redis_server.client.keys("translation:*") == []


def test_redis_away_a_post_is_translated(
    browser: FlaskClient, post: Post, service: TranslationServer, redis_server: RedisServer
) -> None:
    with redis_server.away():
        page = ask(browser, post)

    assert ENGLISH in page.text
    assert kept() == [("en", ENGLISH)]


def test_an_answer_that_is_none_is_a_sentence_and_is_not_kept(
    browser: FlaskClient, post: Post, service: TranslationServer, log: Callable[[], str]
) -> None:
    for answer, outcome in BAD_ANSWERS:
        service.answer = answer
        expect_failure(browser, post, outcome, log)

    assert len(service.questions) == len(BAD_ANSWERS)
    service.answer = None
    assert ENGLISH in ask(browser, post).text


def test_an_answer_without_an_end_is_not_read_to_its_end(
    browser: FlaskClient, post: Post, service: TranslationServer, log: Callable[[], str]
) -> None:
    service.endless = True

    expect_failure(browser, post, REFUSED, log)


def test_a_service_that_hangs_or_is_gone_counts_as_away(
    app: Flask, browser: FlaskClient, post: Post, service: TranslationServer, log: Callable[[], str]
) -> None:
    app.config["TRANSLATE_TIMEOUT"] = 0.2
    with service.silent():
        expect_failure(browser, post, AWAY, log)

    del app.extensions["translator"]
    app.config["TRANSLATE_URL"] = NOBODY_LISTENS
    expect_failure(browser, post, AWAY, log)


def expect_failure(browser: FlaskClient, post: Post, outcome: tuple[int, str], log: Callable[[], str]) -> None:
    """Ask; the page has a sentence, the log a line, and neither has the key."""
    page = ask(browser, post)

    assert page.status_code == outcome[0]
    assert outcome[1] in page.text
    assert kept() == []
    assert "translation service" in log()
    assert "Traceback" not in log()
    assert KEY not in page.text + log()


@pytest.fixture
def log() -> Iterator[Callable[[], str]]:
    """All that is logged meanwhile, down to the last detail."""
    written = io.StringIO()
    root, handler = logging.getLogger(), logging.StreamHandler(written)
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield written.getvalue
    root.setLevel(level)
    root.removeHandler(handler)


def test_only_what_is_in_another_language_can_be_translated(
    app: Flask, browser: FlaskClient, post: Post, service: TranslationServer
) -> None:
    posts = [post, Post(body=ENGLISH, user_id=post.user_id), Post(body="ок", user_id=post.user_id)]
    db.session.add_all(posts)
    db.session.commit()
    addresses = [*map(address, posts), "/posts/2147483647/translation"]

    codes = [browser.post(one).status_code for one in addresses]

    assert codes == [302, 404, 404, 404]
    assert browser.get("/explore").text.count("Translate from") == 1


@pytest.mark.parametrize("database", ["sqlite"])
def test_what_the_service_cannot_translate_is_not_offered_and_what_it_can_is_asked_for_by_its_own_codes(
    app: Flask, browser: FlaskClient, post: Post, service: TranslationServer
) -> None:
    service.languages = {"ru": ["es"], "nb": ["en-GB"], "zh-Hant": ["en"], "zh-Hans": ["en-GB", "en"]}
    posts = [post, *(Post(body="1", language=tag, user_id=post.user_id) for tag in ("no", "zh", "ja"))]
    db.session.add_all(posts)
    db.session.commit()

    page = browser.get("/explore").text
    codes = [browser.post(address(one)).status_code for one in posts]

    assert re.findall(r"Translate from (\w+)", page) == ["Chinese", "Norwegian"]
    assert codes == [404, 302, 302, 404]
    assert [(asked["source"], asked["target"]) for asked in service.questions] == [("nb", "en-GB"), ("zh-Hans", "en")]


@pytest.mark.parametrize("said", [b"[]]", b'{"error": 1}', b'[{"code": "ru"}]', b"[1]", b'[{"code": 1, "targets": 1}]'])
def test_whose_languages_nobody_knows_is_asked_all_the_same(
    app: Flask, browser: FlaskClient, post: Post, service: TranslationServer, said: bytes
) -> None:
    service.said_of_languages = said

    for _page in range(3):
        assert "Translate from Russian" in browser.get("/explore").text

    assert ENGLISH in ask(browser, post).text
    assert service.asked_for_languages == 1


def test_without_a_service_there_is_no_button(app: Flask, browser: FlaskClient, post: Post) -> None:
    app.config["TRANSLATE_URL"] = None

    assert "Translate" not in browser.get("/explore").text
    assert browser.post(address(post)).status_code == 404


def test_nobody_asks_without_an_account_or_by_a_link_or_from_elsewhere(
    app: Flask, client: FlaskClient, browser: FlaskClient, post: Post, service: TranslationServer
) -> None:
    assert client.post(address(post)).headers["Location"].startswith("/auth/login")
    assert "Translate from Russian" in browser.get(address(post)).text
    app.config["WTF_CSRF_ENABLED"] = True

    assert browser.post(address(post)).status_code == 400
    assert service.questions == []


def test_a_user_may_ask_so_many_times_a_minute(
    make_app: Callable[..., Flask], post: Post, service: TranslationServer, make_user: Callable[..., User]
) -> None:
    susan = make_user("susan")
    limited: dict[str, Any] = {"RATELIMIT_ENABLED": True, "RATELIMIT_TRANSLATE": "2 per hour"}
    app = make_app(TRANSLATE_URL=service.url, **limited)
    browser = app.test_client()
    browser.post("/auth/login", data={"username": susan.username, "password": "cat-dog-fish"})

    codes = [browser.post(address(post)).status_code for _click in range(3)]

    assert codes == [302, 302, 429]


@pytest.mark.both_databases
def test_a_translation_goes_with_its_post(browser: FlaskClient, post: Post) -> None:
    ask(browser, post)

    db.session.execute(sa.delete(Post).where(Post.id == post.id))
    db.session.commit()

    assert kept() == []
