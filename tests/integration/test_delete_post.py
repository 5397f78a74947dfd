"""The page of a post, and its deletion by the author."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flask.testing import FlaskClient

from microblog.accounts.models import User
from microblog.extensions import db
from microblog.posts.models import Post
from microblog.posts.services import create_post
from microblog.validators import MAX_ID


@pytest.fixture
def client(susan: User, signed_in: Callable[..., FlaskClient]) -> FlaskClient:
    return signed_in(susan)


def exists(post_id: int) -> bool:
    db.session.expire_all()
    return db.session.get(Post, post_id) is not None


@pytest.mark.both_databases
def test_post_is_deleted_after_confirmation(client: FlaskClient, susan: User) -> None:
    post_id = create_post(susan.id, "Never mind").id
    assert f'href="/post/{post_id}"' in client.get("/explore").text
    confirmation = client.get(f"/post/{post_id}/delete", headers={"Referer": "http://localhost/explore"})
    assert "Never mind" in confirmation.text
    assert 'name="next" value="/explore"' in confirmation.text
    assert exists(post_id)

    answer = client.post(f"/post/{post_id}/delete", data={"next": "/explore"})

    assert answer.headers["Location"] == "/explore"
    assert not exists(post_id)
    for response in (client.get(f"/post/{post_id}"), client.post(f"/post/{post_id}/delete")):
        assert response.status_code == 404
        assert "There is no such post" in response.text


def test_deleting_foreign_post_is_404(client: FlaskClient, susan: User) -> None:
    ben = User(username="ben", email="ben@example.com", password_hash="")
    db.session.add(ben)
    db.session.commit()
    post_id = create_post(ben.id, "Mine").id

    assert "Mine" in client.get(f"/post/{post_id}").text
    assert f"/post/{post_id}/delete" not in client.get("/explore").text
    assert client.get(f"/post/{post_id}/delete").status_code == 404
    assert client.post(f"/post/{post_id}/delete").status_code == 404
    assert exists(post_id)


@pytest.mark.both_databases  # PostgreSQL refuses a number outside its integer range
@pytest.mark.parametrize("number", [0, MAX_ID, MAX_ID + 1, 2**63, "x"])
def test_unknown_post_id_is_404(client: FlaskClient, number: object) -> None:
    assert client.get(f"/post/{number}").status_code == 404
    assert client.get(f"/post/{number}/delete").status_code == 404
    assert client.post(f"/post/{number}/delete").status_code in (404, 405)


@pytest.mark.parametrize("next_url", ["", "//evil.example", "https://evil.example/", "/post/{}", "/post/{}?x=1"])
@pytest.mark.parametrize("database", ["sqlite"])
def test_deletion_ignores_unsafe_next_url(client: FlaskClient, susan: User, next_url: str) -> None:
    post_id = create_post(susan.id, "Never mind").id

    answer = client.post(f"/post/{post_id}/delete", data={"next": next_url.format(post_id)})

    assert answer.headers["Location"] == "/"


@pytest.mark.parametrize("database", ["sqlite"])
def test_deletion_requires_csrf_token(client: FlaskClient, susan: User) -> None:
    post_id = create_post(susan.id, "Never mind").id
    client.application.config["WTF_CSRF_ENABLED"] = True

    assert client.post(f"/post/{post_id}/delete").status_code == 400
    assert exists(post_id)
