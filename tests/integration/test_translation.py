"""Translation of posts: once for each language, with a readable error if the service fails."""

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
from microblog.posts.models import Post, Translation
from tests.support.clients import sign_in
from tests.support.servers import TIMEOUT, RedisServer, wait_for
from tests.support.translator import TranslationServer

UNREACHABLE = "http://127.0.0.1:1"
KEY = "the-key-of-the-service"
RUSSIAN = "Кто знает хорошую пекарню у старого вокзала?"
ENGLISH = "Does anyone know a good bakery near the old station?"
UNAVAILABLE, REFUSED = (503, "does not answer right now"), (502, "could not translate")
FAILURES = [
    ((500, b'{"error": "boom"}'), UNAVAILABLE),
    ((429, b'{"error": "Slowdown"}'), UNAVAILABLE),
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
    monkeypatch.setattr("microblog.posts.translator.LANGUAGES_TIMEOUT", TIMEOUT)
    app.config.update(TRANSLATE_URL=service.url, TRANSLATE_API_KEY=KEY, TRANSLATE_TIMEOUT=TIMEOUT)
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
    """The browser of a reader whose language is English."""
    return signed_in(make_user("susan"))


def path_of(post: Post) -> str:
    return f"/posts/{post.id}/translation"


def translate(browser: FlaskClient, post: Post) -> TestResponse:
    return browser.post(path_of(post), follow_redirects=True)


def stored() -> list[tuple[str, str]]:
    db.session.rollback()
    return [(one.language, one.body) for one in db.session.scalars(sa.select(Translation))]


def test_post_is_translated_by_service(browser: FlaskClient, post: Post, service: TranslationServer) -> None:
    assert "Translate from Russian" in browser.get("/explore").text

    page = translate(browser, post)

    assert page.status_code == 200
    assert f'<p dir="auto" class="post-body" lang="ru">{RUSSIAN}</p>' in page.text
    assert f'<p dir="auto" class="post-translation" lang="en">{ENGLISH}</p>' in page.text
    expected = {"q": RUSSIAN, "source": "ru", "target": "en", "format": "text", "api_key": KEY}
    assert service.questions == [expected]
    assert stored() == [("en", ENGLISH)]


def test_stored_translation_is_reused(browser: FlaskClient, post: Post, service: TranslationServer) -> None:
    for _reader in range(3):
        assert ENGLISH in translate(browser, post).text
    assert ENGLISH in browser.get(path_of(post)).text

    assert len(service.questions) == 1


@pytest.mark.both_databases
def test_concurrent_requests_call_service_once(
    app: Flask, browser: FlaskClient, post: Post, service: TranslationServer, redis_server: RedisServer
) -> None:
    path, pages, cookie = path_of(post), list[TestResponse](), browser.get_cookie("session")
    assert cookie is not None

    def click() -> None:
        client = app.test_client(use_cookies=False)
        pages.append(client.post(path, headers={"Cookie": f"session={cookie.value}"}))

    readers = [threading.Thread(target=click) for _reader in range(6)]
    with service.silent():
        for reader in readers:
            reader.start()
        wait_for(lambda: service.questions, what="the first request to the service")
    for reader in readers:
        reader.join()

    assert [page.status_code for page in pages] == [302] * 6
    assert len(service.questions) == 1
    assert stored() == [("en", ENGLISH)]
    assert redis_server.client.keys(redis_server.key("translation:*")) == []


def test_translation_works_while_redis_is_down(
    browser: FlaskClient, post: Post, service: TranslationServer, redis_server: RedisServer
) -> None:
    with redis_server.stopped():
        page = translate(browser, post)

    assert ENGLISH in page.text
    assert stored() == [("en", ENGLISH)]


def test_invalid_service_response_is_not_stored(
    browser: FlaskClient, post: Post, service: TranslationServer, log: Callable[[], str]
) -> None:
    for response, outcome in FAILURES:
        service.answer = response
        expect_failure(browser, post, outcome, log)

    assert len(service.questions) == len(FAILURES)
    service.answer = None
    assert ENGLISH in translate(browser, post).text


def test_endless_service_response_is_refused(
    browser: FlaskClient, post: Post, service: TranslationServer, log: Callable[[], str]
) -> None:
    service.endless = True

    expect_failure(browser, post, REFUSED, log)


def test_unreachable_service_is_unavailable(
    app: Flask, browser: FlaskClient, post: Post, service: TranslationServer, log: Callable[[], str]
) -> None:
    app.config["TRANSLATE_TIMEOUT"] = 0.2
    with service.silent():
        expect_failure(browser, post, UNAVAILABLE, log)

    del app.extensions["translator"]
    app.config["TRANSLATE_URL"] = UNREACHABLE
    expect_failure(browser, post, UNAVAILABLE, log)


def expect_failure(browser: FlaskClient, post: Post, outcome: tuple[int, str], log: Callable[[], str]) -> None:
    """Request a translation; expect a sentence on the page and a line in the log, both without the API key."""
    page = translate(browser, post)

    assert page.status_code == outcome[0]
    assert outcome[1] in page.text
    assert stored() == []
    assert "translation service" in log()
    assert "Traceback" not in log()
    assert KEY not in page.text + log()


@pytest.fixture
def log() -> Iterator[Callable[[], str]]:
    """Returns everything that has been logged during the test, at level DEBUG."""
    stream = io.StringIO()
    root, handler = logging.getLogger(), logging.StreamHandler(stream)
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield stream.getvalue
    root.setLevel(level)
    root.removeHandler(handler)


def test_only_foreign_language_posts_are_translatable(
    app: Flask, browser: FlaskClient, post: Post, service: TranslationServer
) -> None:
    posts = [post, Post(body=ENGLISH, user_id=post.user_id), Post(body="ок", user_id=post.user_id)]
    db.session.add_all(posts)
    db.session.commit()
    paths = [*map(path_of, posts), "/posts/2147483647/translation"]

    codes = [browser.post(one).status_code for one in paths]

    assert codes == [302, 404, 404, 404]
    assert browser.get("/explore").text.count("Translate from") == 1


@pytest.mark.parametrize("database", ["sqlite"])
def test_offers_follow_languages_of_service(
    app: Flask, browser: FlaskClient, post: Post, service: TranslationServer
) -> None:
    service.languages = {"ru": ["es"], "nb": ["en-GB"], "zh-Hant": ["en"], "zh-Hans": ["en-GB", "en"]}
    posts = [post, *(Post(body="1", language=tag, user_id=post.user_id) for tag in ("no", "zh", "ja"))]
    db.session.add_all(posts)
    db.session.commit()

    page = browser.get("/explore").text
    codes = [browser.post(path_of(one)).status_code for one in posts]

    assert re.findall(r"Translate from (\w+)", page) == ["Chinese", "Norwegian"]
    assert codes == [404, 302, 302, 404]
    assert [(call["source"], call["target"]) for call in service.questions] == [("nb", "en-GB"), ("zh-Hans", "en")]


@pytest.mark.parametrize("body", [b"[]]", b'{"error": 1}', b'[{"code": "ru"}]', b"[1]", b'[{"code": 1, "targets": 1}]'])
def test_invalid_language_list_does_not_prevent_translation(
    app: Flask, browser: FlaskClient, post: Post, service: TranslationServer, body: bytes
) -> None:
    service.said_of_languages = body

    for _page in range(3):
        assert "Translate from Russian" in browser.get("/explore").text

    assert ENGLISH in translate(browser, post).text
    assert service.asked_for_languages == 1


def test_no_translate_button_without_service(app: Flask, browser: FlaskClient, post: Post) -> None:
    app.config["TRANSLATE_URL"] = None

    assert "Translate" not in browser.get("/explore").text
    assert browser.post(path_of(post)).status_code == 404


def test_translation_requires_sign_in_and_csrf_token(
    app: Flask, client: FlaskClient, browser: FlaskClient, post: Post, service: TranslationServer
) -> None:
    assert client.post(path_of(post)).headers["Location"].startswith("/auth/login")
    assert "Translate from Russian" in browser.get(path_of(post)).text
    app.config["WTF_CSRF_ENABLED"] = True

    assert browser.post(path_of(post)).status_code == 400
    assert service.questions == []


def test_translations_are_rate_limited(
    make_app: Callable[..., Flask], post: Post, service: TranslationServer, make_user: Callable[..., User]
) -> None:
    make_user("susan")
    limited: dict[str, Any] = {"RATELIMIT_ENABLED": True, "RATELIMIT_TRANSLATE": "2 per hour"}
    app = make_app(TRANSLATE_URL=service.url, **limited)
    browser = app.test_client()
    sign_in(browser)

    codes = [browser.post(path_of(post)).status_code for _click in range(3)]

    assert codes == [302, 302, 429]


@pytest.mark.both_databases
def test_translation_is_deleted_with_post(browser: FlaskClient, post: Post) -> None:
    translate(browser, post)

    db.session.execute(sa.delete(Post).where(Post.id == post.id))
    db.session.commit()

    assert stored() == []
