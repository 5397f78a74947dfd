"""A program has a post translated, as a reader does on the page."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from flask import Flask

from microblog.accounts.models import User
from microblog.api.schemas import TranslationSchema
from microblog.extensions import db
from microblog.posts.models import Post
from tests.support.api import Caller, assert_problem, caller_for
from tests.support.translator import TranslationServer

RUSSIAN = "Кто знает хорошую пекарню у старого вокзала?"
ENGLISH = "Does anyone know a good bakery near the old station?"

pytestmark = pytest.mark.parametrize("database", ["sqlite"])  # the pages are tested with both


@pytest.fixture
def service() -> Iterator[TranslationServer]:
    server = TranslationServer()
    server.start()
    server.translations[RUSSIAN] = ENGLISH
    yield server
    server.stop()


@pytest.fixture
def app(make_app: Callable[..., Flask], service: TranslationServer) -> Flask:
    return make_app(TRANSLATE_URL=service.url, TRANSLATE_TIMEOUT=60.0)


@pytest.fixture
def susan(app: Flask, make_user: Callable[..., User]) -> Caller:
    return caller_for(app, make_user("susan"))


@pytest.fixture
def path(susan: Caller) -> str:
    """That of a post in Russian."""
    written = susan.post("/api/posts", json={"body": RUSSIAN})
    assert written.json["language"] == "ru"
    return f"{written.headers['Location']}/translation"


def test_it_is_made_once_and_in_the_callers_language(susan: Caller, path: str, service: TranslationServer) -> None:
    answers = [susan.post(path) for _ in range(2)]

    for answer in answers:
        assert (answer.status_code, answer.json) == (200, {"language": "en", "body": ENGLISH})
        assert TranslationSchema().validate(answer.json) == {}
    assert len(service.questions) == 1
    susan.patch("/api/users/me", json={"language": "ru"})
    assert_problem(susan.post(path), 404)


def test_what_is_in_the_way_is_a_problem(susan: Caller, path: str, service: TranslationServer) -> None:
    for status, told in ((500, 503), (400, 502)):
        service.answer = (status, b"{}")
        assert_problem(susan.post(path), told)
    assert_problem(susan.post("/api/posts/999/translation"), 404)


def test_the_post_may_go_meanwhile(susan: Caller, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(post: Post, language: str) -> None:
        db.session.delete(post)
        db.session.commit()

    monkeypatch.setattr("microblog.posts.translation.service.translate_once", gone)

    assert_problem(susan.post(path), 404)
