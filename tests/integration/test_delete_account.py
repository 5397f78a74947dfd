"""Deleting an account: it is closed at once for all users, then its rows are deleted in batches."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient

from microblog.accounts import deletion
from microblog.accounts.models import EmailChange, Follow, User
from microblog.accounts.services import FOLLOWER, RESET_EMAIL_TASK, count_follows, request_password_reset
from microblog.api.models import ApiToken
from microblog.clock import utcnow
from microblog.exports.archive import archive_storage
from microblog.exports.models import Archive
from microblog.extensions import db
from microblog.imports import models
from microblog.imports.models import RejectedEntry, Upload
from microblog.jobs.services import delete_jobs_of_user
from microblog.messages.services import send_message
from microblog.monitoring.models import RollUp
from microblog.notifications import unread_counts
from microblog.notifications.services import notify
from microblog.posts.models import Post
from microblog.taskqueue.launch import launch
from microblog.taskqueue.models import Task
from microblog.taskqueue.reconcile import reconcile_all
from tests.support import tasks
from tests.support.clients import PASSWORD, sign_in
from tests.support.console import commands
from tests.support.factories import make_job
from tests.support.servers import Worker, wait_for
from tests.support.smtp import SmtpServer

pytestmark = pytest.mark.both_databases

# Columns of rows that belong to two users and are deleted with either of them.
OF_BOTH = (
    *("follow.follower_id", "follow.followed_id", "message.sender_id", "message.recipient_id"),
    *("notification.user_id", "notification.actor_id"),
)


def delete(client: FlaskClient, username: str = "susan", password: str = PASSWORD) -> Any:
    fields = {"username": username, "current_password": password}
    return client.post("/account/delete/confirm", data=fields, follow_redirects=True)


def register(client: FlaskClient) -> Any:
    """Register an account with the username and the email address of Susan."""
    form = {"username": "susan", "email": "susan@example.com", "password": PASSWORD, "password2": PASSWORD}
    return client.post("/auth/register", data=form)


def create_data(susan: User, ben: User, posts: int = 25) -> None:
    """Create rows of every kind, and files, for Susan and for Ben."""
    for user, other in ((susan, ben), (ben, susan)):
        db.session.add_all(Post(user_id=user.id, body=f"{user.username} {n}") for n in range(posts))
        db.session.add(Follow(follower_id=user.id, followed_id=other.id))
        ApiToken.issue(user, timedelta(days=1))
        path = f"{user.username}.1.json"
        with archive_storage().new(path) as file:
            file.write([b"{}"])
        columns = {"path": path, "posts": posts, "size": 2, "sha256": "", "expires_at": utcnow() + timedelta(days=1)}
        db.session.add(Archive(id=user.username, user_id=user.id, attempt=1, **columns))
        db.session.add(EmailChange(user_id=user.id, old_address=user.email, new_address=f"new.{user.email}"))
        db.session.commit()
        send_message(user, other, f"A word of {user.username}")
        notify(other.id, FOLLOWER, str(user.id), actor_id=user.id)
        upload = Upload(user_id=user.id, id=f"upload-of-{user.username}", expires_at=utcnow() + timedelta(days=1))
        db.session.add(upload)
        db.session.commit()
        db.session.add(RejectedEntry(upload_id=upload.id, place=1, number=1, line=1, reason="It is empty."))
        db.session.commit()
        with models.upload_storage().new(upload.path) as file:
            file.write([b"{}"])
    db.session.commit()


def count_rows(user_id: int) -> dict[str, int]:
    """Return the number of rows that refer to a user, by foreign key column."""
    db.session.rollback()
    return {
        f"{key.parent}": db.session.scalar(sa.select(sa.func.count()).where(key.parent == user_id)) or 0
        for table in db.metadata.sorted_tables
        for key in table.foreign_keys
        if key.column.table.name == "user"
    }


def files(app: Flask) -> set[str]:
    folders = (app.config["EXPORT_STORAGE_URL"], app.config["IMPORT_STORAGE_URL"])
    return {path.name for folder in folders for path in Path(folder).rglob("*.json")}


def job(name: str) -> Task:
    db.session.rollback()
    return db.session.scalars(sa.select(Task).where(Task.name == name)).one()


def is_deleted() -> bool:
    """Publish the task's retry, if it is due: it waits for the jobs of the user and for its mail."""
    reconcile_all()
    return job("delete_account").state == "SUCCESS"


def test_deletion_closes_account_and_removes_all_data(
    app: Flask,
    susan: User,
    ben: User,
    client: FlaskClient,
    signed_in: Callable[..., FlaskClient],
    smtp_server: SmtpServer,
    worker: Worker,
    tmp_path: Path,
) -> None:
    create_data(susan, ben)
    susan_id, rows_of_ben = susan.id, count_rows(ben.id)
    make_job(susan, "SUCCESS", "SUCCESS", seconds_ago=60, finished_at=utcnow())
    running = launch(tasks.count.s(str(tmp_path / "never")), user_id=susan.id)
    db.session.commit()
    wait_for(lambda: job("count").state == "PROGRESS", what="a job of Susan runs")
    browser = signed_in(susan)

    assert "Export your posts" in browser.get("/account/delete").text
    assert "It will be cancelled." in browser.get("/account/delete/confirm").text
    assert "Your account is closed" in delete(browser).text

    assert browser.get("/").status_code == 302
    assert sign_in(client).status_code == 401
    wait_for(is_deleted, what="the account is deleted")
    assert set(count_rows(susan_id).values()) == {0}
    assert db.session.get(User, susan_id) is None
    assert files(app) == {"ben.1.json", "upload-of-ben.json"}
    assert db.session.scalars(sa.select(RejectedEntry.upload_id)).all() == ["upload-of-ben"]
    assert [message["To"] for message in smtp_server.messages] == ["susan@example.com"]
    assert "Your account is deleted" in smtp_server.messages[0]["Subject"]
    # The deletion job and the columns that statistics need remain. Ben loses only the rows shared with Susan.
    done = job("delete_account")
    assert (done.user_id, done.progress, done.error) == (None, 100, None)
    assert (done.result or {})["deleted"] >= 25
    assert done.signature["args"] == [susan_id, job("email_account_deleted").id]
    left = db.session.get_one(Task, running.id)
    assert (left.state, left.user_id, left.signature) == ("REVOKED", None, {})
    assert count_rows(ben.id) == rows_of_ben | dict.fromkeys(OF_BOTH, 0)
    assert register(client).status_code == 302


def test_closed_account_is_hidden_from_pages(
    app: Flask, susan: User, ben: User, signed_in: Callable[..., FlaskClient], client: FlaskClient
) -> None:
    create_data(susan, ben, posts=5)
    app.config["TRANSLATE_URL"] = "http://127.0.0.1:1"
    browser, other_browser, reader = signed_in(susan), signed_in(susan), signed_in(ben)
    token, _row = ApiToken.issue(susan, timedelta(days=1))
    db.session.commit()
    post_id = db.session.scalar(sa.select(sa.func.min(Post.id)).where(Post.user_id == susan.id))
    pages = ("/", "/explore", "/user/ben/followers", "/user/ben/following", "/messages/sent", "/notifications/all")
    for path in pages:
        assert "susan" in reader.get(path).text, path
    assert "No post has this." not in reader.get("/search?q=susan").text
    assert reader.get(f"/post/{post_id}").status_code == 200
    assert unread_counts.unread_counts(ben.id) == {"messages": 1, "notifications": 2}

    delete(browser)

    assert other_browser.get("/").status_code == 302
    assert client.get("/api/tasks", headers={"Authorization": f"Bearer {token}"}).status_code == 401
    assert client.post("/api/tokens", auth=("susan", PASSWORD)).status_code == 401
    for path in (
        "/user/susan",
        "/user/susan/followers",
        "/user/susan/popup",
        "/send_message/susan",
        f"/post/{post_id}",
    ):
        assert reader.get(path).status_code == 404, path
    assert unread_counts.unread_counts(ben.id) == {"messages": 0, "notifications": 0}
    for path in (*pages, "/messages"):
        assert "susan" not in reader.get(path).text, path
    assert "No post has this." in reader.get("/search?q=susan").text
    assert count_follows(ben) == (0, 0)
    for path in ("/follow/susan", "/send_message/susan", f"/posts/{post_id}/translation"):
        assert reader.post(path).status_code == 404, path
    db.session.rollback()
    listed = commands(app, "users")("list").stdout
    assert re.search(r"^susan .* is being deleted$", listed, re.MULTILINE)


def test_closed_account_is_hidden_from_api(susan: User, ben: User, client: FlaskClient) -> None:
    create_data(susan, ben, posts=5)
    post_id = db.session.scalar(sa.select(sa.func.min(Post.id)).where(Post.user_id == susan.id))
    token, _row = ApiToken.issue(ben, timedelta(days=1))
    db.session.commit()
    options = {"headers": {"Authorization": f"Bearer {token}"}}
    own = ("/api/users/susan", "/api/users/susan/posts", f"/api/posts/{post_id}")
    shared = ("/api/users", "/api/timelines/home", "/api/timelines/explore", "/api/users/me/followers")
    for path in (*own, *shared):
        assert "susan" in client.get(path, **options).text, path

    deletion.close_account(susan)

    for path in own:
        assert client.get(path, **options).status_code == 404, path
    for path in shared:
        assert "susan" not in client.get(path, **options).text, path


def test_name_stays_reserved_until_deletion_ends(susan: User, client: FlaskClient) -> None:
    deletion.close_account(susan)

    refused = register(client)
    request_password_reset("susan@example.com")

    assert "This username is taken." in refused.text
    assert "There is an account with this address already." in refused.text
    assert job(RESET_EMAIL_TASK).signature["args"] == [None]


@pytest.mark.parametrize(
    ("username", "password", "sentence"),
    [
        ("susan", "wrong", "This is not your password."),
        ("ben", PASSWORD, "This is not your username."),
        ("", PASSWORD, "Type your username."),
    ],
)
def test_deletion_requires_username_and_password(
    susan: User, signed_in: Callable[..., FlaskClient], username: str, password: str, sentence: str
) -> None:
    browser = signed_in(susan)

    response = delete(browser, username, password)

    assert response.status_code == 422
    assert sentence in response.text
    assert browser.get("/").status_code == 200
    assert db.session.scalars(sa.select(Task)).all() == []


def test_second_deletion_request_is_ignored(susan: User) -> None:
    assert deletion.close_account(susan)

    assert not deletion.close_account(susan)

    assert job("delete_account").state == "PENDING"


@pytest.mark.parametrize("database", ["sqlite"])
def test_number_of_notified_readers_is_limited(
    susan: User, make_user: Callable[..., User], monkeypatch: pytest.MonkeyPatch
) -> None:
    readers = {make_user(name).id for name in ("ann", "ben", "cid")}
    for reader_id in readers:
        notify(reader_id, FOLLOWER, str(susan.id), actor_id=susan.id)
    db.session.commit()
    notified: list[int] = []
    monkeypatch.setattr(deletion, "push", notified.append)
    monkeypatch.setattr(deletion, "MAX_PUSHED", 2)

    deletion.close_account(susan)

    assert len(notified) == 2
    assert set(notified) < readers
    assert unread_counts.unread_counts(readers.pop())["notifications"] == 0  # shown with the next event


def test_killed_deletion_is_resumed(app: Flask, susan: User, ben: User, monkeypatch: pytest.MonkeyPatch) -> None:
    create_data(susan, ben)
    susan_id = susan.id
    deletion.close_account(susan)
    monkeypatch.setattr(deletion, "BATCH", 10)
    expected = deletion.count_user_data(susan_id)

    first = deletion.delete_user_data(susan_id)
    assert isinstance(first, Generator)
    killed = next(first) + next(first)
    first.close()
    rest = list(deletion.delete_user_data(susan_id))

    assert killed + sum(rest) == expected
    assert max(rest) <= 10  # in batches
    assert sum(deletion.delete_user_data(susan_id)) == 0
    deletion.delete_user(susan_id)
    deletion.delete_user(susan_id)
    assert set(count_rows(susan_id).values()) == {0}


def test_newest_posts_are_deleted_first(susan: User, monkeypatch: pytest.MonkeyPatch) -> None:
    days = (3, 1, 5, 2, 4)
    db.session.add_all(Post(user_id=susan.id, body=f"{day}", timestamp=utcnow() + timedelta(days=day)) for day in days)
    db.session.commit()
    susan_id = susan.id
    deletion.close_account(susan)
    monkeypatch.setattr(deletion, "BATCH", 2)

    left = [set(db.session.scalars(sa.select(Post.body))) for _ in deletion.delete_user_data(susan_id)]

    assert [{"1", "2", "3"}, {"1"}, set()] == [bodies for n, bodies in enumerate(left) if bodies not in left[:n]][-3:]


def test_open_account_is_not_deleted(app: Flask, susan: User, ben: User) -> None:
    # A frozen process may continue after the id has been given to another user.
    create_data(susan, ben)
    rows_before = count_rows(susan.id)

    assert list(deletion.delete_user_data(susan.id)) == []
    for column in deletion._owned():
        db.session.execute(deletion._delete_batch(column, susan.id))
    deletion.delete_user(susan.id)

    assert count_rows(susan.id) == rows_before
    assert files(app) == {"susan.1.json", "ben.1.json", "upload-of-susan.json", "upload-of-ben.json"}


def test_every_reference_to_user_is_deleted(app: Flask) -> None:
    rules = {
        str(key.parent): key.ondelete
        for table in db.metadata.sorted_tables
        for key in table.foreign_keys
        if key.column.table.name == "user"
    }

    # Uploads are deleted before the user. If one is stored meanwhile, its row remains for the sweep to find.
    exceptions = {"upload.user_id": "SET NULL"}
    assert {column: rule for column, rule in rules.items() if rule != "CASCADE"} == exceptions
    assert {str(column) for column in deletion._owned()} == set(rules) - {"task.user_id", *exceptions}


def test_jobs_needed_by_statistics_are_anonymized(susan: User) -> None:
    old = make_job(susan, "SUCCESS", "FAILURE", seconds_ago=90_000, finished_at=utcnow() - timedelta(hours=25))
    new = make_job(
        susan,
        "FAILURE",
        "FAILURE",
        finished_at=utcnow(),
        error="susan's",
        result={"a": "susan's"},
        retry_signature={"args": ["susan's"]},
    )
    db.session.execute(sa.update(RollUp).values(settled_until=utcnow() - timedelta(hours=2)))
    db.session.commit()

    assert sum(delete_jobs_of_user(susan.id)) == 4

    db.session.rollback()
    left = db.session.scalars(sa.select(Task).where(Task.root_id.in_([old, new]))).all()
    assert {task.root_id for task in left} == {new}
    for task in left:
        values = (task.user_id, task.error, task.result, task.signature, task.retry_signature, task.description)
        assert values == (None, None, None, {}, None, task.name)
        assert task.finished_at is not None
