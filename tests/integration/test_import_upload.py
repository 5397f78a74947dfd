"""A file of posts at the door: of the page, and of the API."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from microblog.accounts.models import User
from microblog.api.schemas import TaskSchema
from microblog.extensions import db
from microblog.imports.models import Upload
from microblog.imports.uploads import current_storage
from microblog.taskqueue.models import Task
from tests.support.api import assert_problem, caller_for
from tests.support.imports import archive, files, post, store

JSON = "application/json"


def upload_page(client: FlaskClient, content: bytes, **fields: Any) -> TestResponse:
    return client.post("/import", data={"file": (io.BytesIO(content), "posts.json"), **fields})


def launched(user: User) -> Iterable[str]:
    db.session.rollback()
    return db.session.scalars(sa.select(Task.name).where(Task.user_id == user.id)).all()


@pytest.mark.both_databases
def test_a_second_file_waits_for_the_first(susan: User, signed_in: Callable[..., FlaskClient]) -> None:
    client = signed_in(susan)
    upload_page(client, archive(post("one")))

    second = upload_page(client, archive(post("two")))

    assert second.status_code == 302
    assert "An import is already running" in client.get("/tasks").text
    assert launched(susan) == ["import_posts"]
    assert len(files()) == 1


@pytest.mark.both_databases
def test_a_new_file_takes_the_place_of_those_that_wait_for_another_attempt(
    susan: User, make_user: Callable[..., User], signed_in: Callable[..., FlaskClient]
) -> None:
    waiting, of_ben = store(susan, archive(post("old"))), store(make_user("ben"), archive(post("theirs")))
    waiting_id, kept = waiting.id, of_ben.path
    browser = signed_in(susan)

    upload_page(browser, archive(post("new")))

    db.session.rollback()
    [new] = db.session.scalars(sa.select(Upload).where(Upload.user_id == susan.id))
    assert new.id != waiting_id
    [task] = db.session.scalars(sa.select(Task).where(Task.user_id == susan.id))
    assert task.signature["args"] == [susan.id, new.id]
    assert files() == sorted([kept, new.path])
    upload_page(browser, archive(post("refused, for one is running")))
    assert files() == sorted([kept, new.path])


@pytest.mark.parametrize("database", ["sqlite"])
def test_what_is_no_file_of_posts_is_refused_at_the_door(susan: User, signed_in: Callable[..., FlaskClient]) -> None:
    client = signed_in(susan)

    answers = [upload_page(client, b"\x1f\x8b\x08packed\xff"), client.post("/import", data={"file": ""})]

    assert [answer.status_code for answer in answers] == [422, 422]
    assert "unpack it" in answers[0].text
    assert "Choose a file first." in answers[1].text
    assert launched(susan) == []
    assert not Path(current_storage()._root).exists()


@pytest.mark.parametrize("database", ["sqlite"])
def test_a_file_may_be_larger_than_a_form_but_not_than_its_own_limit_and_for_nobody_else(
    app: Flask, susan: User, client: FlaskClient, signed_in: Callable[..., FlaskClient]
) -> None:
    app.config |= {"MAX_CONTENT_LENGTH": 10_000, "IMPORT_MAX_SIZE": 100_000, "WTF_CSRF_ENABLED": False}
    browser = signed_in(susan)
    middling, large = archive(post("x" * 50_000)), archive(post("x" * 150_000))

    assert upload_page(client, middling).status_code in (302, 413)
    assert upload_page(browser, large).status_code == 413
    assert browser.post("/", data={"post": "x" * 50_000}).status_code == 413
    assert launched(susan) == []
    assert upload_page(browser, middling).status_code == 302
    assert launched(susan) == ["import_posts"]


@pytest.mark.parametrize("database", ["sqlite"])
def test_imports_and_exports_are_counted_together_for_their_user(susan: User, make_app: Callable[..., Flask]) -> None:
    browser = make_app(RATELIMIT_ENABLED=True, RATELIMIT_EXPORT="2 per hour").test_client()
    browser.post("/auth/login", data={"username": "susan", "password": "cat-dog-fish"})

    answers = [
        browser.post("/export_posts"),
        upload_page(browser, archive(post("one"))),
        browser.post("/export_posts"),
        upload_page(browser, archive(post("two"))),
    ]

    assert [answer.status_code for answer in answers] == [302, 302, 429, 429]


@pytest.mark.parametrize("database", ["sqlite"])
def test_nothing_is_read_of_a_file_that_comes_too_soon(susan: User, make_app: Callable[..., Flask]) -> None:
    class Untouched(io.BytesIO):
        def read(self, *_: Any) -> bytes:
            pytest.fail("it was read")

        readinto: Any = read

    app = make_app(RATELIMIT_ENABLED=True, RATELIMIT_EXPORT="1 per hour")
    browser = app.test_client()
    browser.post("/auth/login", data={"username": "susan", "password": "cat-dog-fish"})
    browser.post("/export_posts")
    app.config["WTF_CSRF_ENABLED"] = True

    refused = browser.post(
        "/import", input_stream=Untouched(b"x" * 100), content_type="multipart/form-data; boundary=x"
    )

    assert refused.status_code == 429
    assert "You have tried this too often." in refused.text


@pytest.mark.parametrize("database", ["sqlite"])
def test_a_file_from_elsewhere_is_refused(app: Flask, susan: User, signed_in: Callable[..., FlaskClient]) -> None:
    browser = signed_in(susan)
    app.config["WTF_CSRF_ENABLED"] = True

    response = upload_page(browser, archive(post("one")), csrf_token="forged")

    assert response.status_code == 400
    assert launched(susan) == []


@pytest.mark.both_databases
def test_a_program_sends_the_file_as_it_is_and_follows_its_import(app: Flask, susan: User) -> None:
    caller = caller_for(app, susan)

    response = caller.post("/api/imports", data=archive(post("one")), content_type=JSON)

    assert response.status_code == 202
    assert response.headers["Location"] == f"/api/tasks/{response.json['id']}"
    assert (response.json["name"], response.json["state"]) == ("import_posts", "PENDING")
    assert TaskSchema().validate(response.json) == {}
    [upload] = db.session.scalars(sa.select(Upload).where(Upload.user_id == susan.id))
    assert b"".join(current_storage().read_chunks(upload.path)) == archive(post("one"))
    running = caller.post("/api/imports", data=archive(post("two")), content_type=JSON)
    assert_problem(running, 409)
    assert running.headers["Location"] == response.headers["Location"]
    assert files() == [upload.path]


@pytest.mark.parametrize("database", ["sqlite"])
@pytest.mark.parametrize(
    ("content", "content_type", "status"),
    [
        (b"[]", JSON, 422),
        (b"", JSON, 422),
        (b"\x1f\x8b\x08packed\xff", JSON, 422),
        (b"{}", "application/octet-stream", 415),
        (b"file=posts.json", "application/x-www-form-urlencoded", 415),
        (archive(post("x" * 150_000)), JSON, 413),
    ],
)
def test_a_program_that_sends_no_file_of_posts_hears_why(
    app: Flask, susan: User, content: bytes, content_type: str, status: int
) -> None:
    app.config["IMPORT_MAX_SIZE"] = 100_000

    response = caller_for(app, susan).post("/api/imports", data=content, content_type=content_type)

    assert_problem(response, status)
    assert launched(susan) == []
    assert db.session.scalar(sa.select(Upload.id)) is None
    assert not Path(current_storage()._root).exists()


@pytest.mark.parametrize("database", ["sqlite"])
def test_a_file_larger_than_other_bodies_is_read_of_nobody_without_a_token(app: Flask, susan: User) -> None:
    app.config |= {"MAX_CONTENT_LENGTH": 10_000, "IMPORT_MAX_SIZE": 100_000}
    caller, middling = caller_for(app, susan), archive(post("x" * 50_000))

    stranger = app.test_client().post("/api/imports", data=middling, content_type=JSON)

    assert_problem(stranger, 401)
    assert_problem(caller.post("/api/posts", data=middling, content_type=JSON), 413)
    assert caller.post("/api/imports", data=middling, content_type=JSON).status_code == 202
