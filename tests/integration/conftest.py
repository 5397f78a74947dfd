"""Who is in most of these tests: users by their names, and the browsers of two of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flask.testing import FlaskClient

from microblog.accounts.models import User
from microblog.extensions import db


@pytest.fixture
def susan(make_user: Callable[..., User]) -> User:
    return make_user("susan")


@pytest.fixture
def miguel(make_user: Callable[..., User]) -> User:
    return make_user("miguel")


@pytest.fixture
def ben(make_user: Callable[..., User]) -> User:
    return make_user("ben")


@pytest.fixture
def browser(signed_in: Callable[..., FlaskClient], susan: User) -> FlaskClient:
    """Susan's."""
    return signed_in(susan)


@pytest.fixture
def operator(make_user: Callable[..., User], signed_in: Callable[..., FlaskClient]) -> FlaskClient:
    """The browser of an operator."""
    user = make_user("olga")
    user.is_operator = True
    db.session.commit()
    return signed_in(user)
