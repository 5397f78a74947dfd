"""A test client whose requests share only their cookies, as those of a browser do, and signing in with it."""

from __future__ import annotations

import io
import re
from typing import Any, NoReturn

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from microblog.accounts.models import User
from microblog.extensions import db

PASSWORD = "cat-dog-fish"  # of all users of the tests


class Client(FlaskClient):
    """A test client that pushes a separate app context for each request.

    Flask would reuse the context that the test has pushed, and `flask.g` with it: the user of one request would stay
    signed in for the next, whatever its cookies are.
    """

    def open(self, *args: Any, **kwargs: Any) -> Any:
        """Send a request in a new app context, otherwise like FlaskClient.open()."""
        with self.application.app_context():
            return super().open(*args, **kwargs)


def sign_in(
    client: FlaskClient,
    username: str = "susan",
    password: str = PASSWORD,
    *,
    query: str = "",
    address: str = "127.0.0.1",
    **fields: str,
) -> TestResponse:
    """Submit the login form from the given address, with further `fields`."""
    data = {"username": username, "password": password, **fields}
    return client.post(f"/auth/login{query}", data=data, environ_base={"REMOTE_ADDR": address})


def signed_in_client(app: Flask, user: User, password: str = PASSWORD) -> FlaskClient:
    """Return a test client in which the user is signed in."""
    client = app.test_client()
    response = sign_in(client, user.username, password)
    assert response.status_code == 302, response.text
    return client


def accepts_password(password: str) -> bool:
    """Return True if Susan can sign in with `password`."""
    db.session.rollback()
    return User.with_credentials("susan", password) is not None


class UnreadBody(io.BytesIO):
    """A request body that fails the test if it is read."""

    def read(self, *_: object) -> NoReturn:
        pytest.fail("the body was read")

    readinto = read


def without_csrf_tokens(page: str) -> str:
    """Return the page without its CSRF tokens, whose signature contains the time of their creation."""
    return re.sub(r'(name="csrf_token"[^>]* value=)"[^"]*"', r"\1", page)
