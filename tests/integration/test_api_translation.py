"""Translating a post through the API."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from flask import Flask

from microblog.api.schemas import TranslationSchema
from microblog.extensions import db
from microblog.posts.models import Post
from tests.support.api import Caller, assert_problem
from tests.support.translator import TranslationServer

RUSSIAN = "Кто знает хорошую пекарню у старого вокзала?"
ENGLISH = "Does anyone know a good bakery near the old station?"

pytestmark = pytest.mark.parametrize("database", ["sqlite"])  # the tests of the pages use both


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
def path(caller: Caller) -> str:
    """The API path of the translation of a Russian post."""
    written = caller.post("/api/posts", json={"body": RUSSIAN})
    assert written.get_json()["language"] == "ru"
    return f"{written.headers['Location']}/translation"


def test_translation_is_made_once_in_users_language(caller: Caller, path: str, service: TranslationServer) -> None:
    answers = [caller.post(path) for _ in range(2)]

    for answer in answers:
        assert (answer.status_code, answer.get_json()) == (200, {"language": "en", "body": ENGLISH})
        assert TranslationSchema().validate(answer.get_json()) == {}
    assert len(service.questions) == 1
    caller.patch("/api/users/me", json={"language": "ru"})
    assert_problem(caller.post(path), 404)


def test_translation_errors_are_problems(caller: Caller, path: str, service: TranslationServer) -> None:
    for status, expected in ((500, 503), (400, 502)):
        service.answer = (status, b"{}")
        assert_problem(caller.post(path), expected)
    assert_problem(caller.post("/api/posts/999/translation"), 404)


def test_post_deleted_during_translation_is_404(caller: Caller, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def delete_post(post: Post, language: str) -> None:
        db.session.delete(post)
        db.session.commit()

    monkeypatch.setattr("microblog.posts.translation.translate_once", delete_post)

    assert_problem(caller.post(path), 404)
