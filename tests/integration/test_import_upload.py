"""Uploading a file of posts, by the form and by the API."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from microblog.accounts.models import User
from microblog.api.schemas import TaskSchema
from microblog.extensions import db
from microblog.imports.models import Upload, upload_storage
from microblog.taskqueue.models import Task
from tests.support.api import assert_problem, caller_for
from tests.support.clients import UnreadBody, sign_in
from tests.support.imports import archive, files, post, store

JSON = "application/json"


def upload_page(client: FlaskClient, content: bytes, **fields: Any) -> TestResponse:
    return client.post("/import", data={"file": (io.BytesIO(content), "posts.json"), **fields})


def launched(user: User) -> Iterable[str]:
    db.session.rollback()
    return db.session.scalars(sa.select(Task.name).where(Task.user_id == user.id)).all()


@pytest.mark.both_databases
def test_second_upload_refused_while_import_running(susan: User, signed_in: Callable[..., FlaskClient]) -> None:
    client = signed_in(susan)
    upload_page(client, archive(post("one")))

    second = upload_page(client, archive(post("two")))

    assert second.status_code == 302
    assert "An import is already running" in client.get("/tasks").text
    assert launched(susan) == ["import_posts"]
    assert len(files()) == 1


@pytest.mark.both_databases
def test_upload_replaces_files_waiting_for_retry(
    susan: User, make_user: Callable[..., User], signed_in: Callable[..., FlaskClient]
) -> None:
    waiting, other = store(susan, archive(post("old"))), store(make_user("ben"), archive(post("theirs")))
    waiting_id, other_path = waiting.id, other.path
    browser = signed_in(susan)

    upload_page(browser, archive(post("new")))

    db.session.rollback()
    [new] = db.session.scalars(sa.select(Upload).where(Upload.user_id == susan.id))
    assert new.id != waiting_id
    [task] = db.session.scalars(sa.select(Task).where(Task.user_id == susan.id))
    assert task.signature["args"] == [susan.id, new.id]
    assert files() == sorted([other_path, new.path])
    upload_page(browser, archive(post("refused, since an import is running")))
    assert files() == sorted([other_path, new.path])


@pytest.mark.parametrize("database", ["sqlite"])
def test_invalid_upload_is_refused_without_job(susan: User, signed_in: Callable[..., FlaskClient]) -> None:
    client = signed_in(susan)

    responses = [upload_page(client, b"\x1f\x8b\x08packed\xff"), client.post("/import", data={"file": ""})]

    assert [response.status_code for response in responses] == [422, 422]
    assert "unpack it" in responses[0].text
    assert "Choose a file first." in responses[1].text
    assert launched(susan) == []
    assert files() == []


@pytest.mark.parametrize("database", ["sqlite"])
def test_import_size_limit_applies_to_signed_in_users(
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
def test_imports_and_exports_share_rate_limit(susan: User, make_app: Callable[..., Flask]) -> None:
    browser = make_app(RATELIMIT_ENABLED=True, RATELIMIT_EXPORT="2 per hour").test_client()
    sign_in(browser)

    responses = [
        browser.post("/export_posts"),
        upload_page(browser, archive(post("one"))),
        browser.post("/export_posts"),
        upload_page(browser, archive(post("two"))),
    ]

    assert [response.status_code for response in responses] == [302, 302, 429, 429]


@pytest.mark.parametrize("database", ["sqlite"])
def test_rate_limited_upload_is_not_read(susan: User, make_app: Callable[..., Flask]) -> None:
    app = make_app(RATELIMIT_ENABLED=True, RATELIMIT_EXPORT="1 per hour")
    browser = app.test_client()
    sign_in(browser)
    browser.post("/export_posts")
    app.config["WTF_CSRF_ENABLED"] = True

    refused = browser.post(
        "/import", input_stream=UnreadBody(b"x" * 100), content_type="multipart/form-data; boundary=x"
    )

    assert refused.status_code == 429
    assert "You have tried this too often." in refused.text


@pytest.mark.parametrize("database", ["sqlite"])
def test_upload_with_forged_csrf_token_is_refused(
    app: Flask, susan: User, signed_in: Callable[..., FlaskClient]
) -> None:
    browser = signed_in(susan)
    app.config["WTF_CSRF_ENABLED"] = True

    response = upload_page(browser, archive(post("one")), csrf_token="forged")

    assert response.status_code == 400
    assert launched(susan) == []


@pytest.mark.both_databases
def test_api_import_returns_task(app: Flask, susan: User) -> None:
    caller = caller_for(app, susan)

    response = caller.post("/api/imports", data=archive(post("one")), content_type=JSON)

    assert response.status_code == 202
    assert response.headers["Location"] == f"/api/tasks/{response.get_json()['id']}"
    assert (response.get_json()["name"], response.get_json()["state"]) == ("import_posts", "PENDING")
    assert TaskSchema().validate(response.get_json()) == {}
    [upload] = db.session.scalars(sa.select(Upload).where(Upload.user_id == susan.id))
    assert b"".join(upload_storage().read_chunks(upload.path)) == archive(post("one"))
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
def test_api_refuses_invalid_import(app: Flask, susan: User, content: bytes, content_type: str, status: int) -> None:
    app.config["IMPORT_MAX_SIZE"] = 100_000

    response = caller_for(app, susan).post("/api/imports", data=content, content_type=content_type)

    assert_problem(response, status)
    assert launched(susan) == []
    assert db.session.scalar(sa.select(Upload.id)) is None
    assert files() == []


@pytest.mark.parametrize("database", ["sqlite"])
def test_api_import_size_limit_requires_token(app: Flask, susan: User) -> None:
    app.config |= {"MAX_CONTENT_LENGTH": 10_000, "IMPORT_MAX_SIZE": 100_000}
    caller, middling = caller_for(app, susan), archive(post("x" * 50_000))

    unauthenticated = app.test_client().post("/api/imports", data=middling, content_type=JSON)

    assert_problem(unauthenticated, 401)
    assert_problem(caller.post("/api/posts", data=middling, content_type=JSON), 413)
    assert caller.post("/api/imports", data=middling, content_type=JSON).status_code == 202
