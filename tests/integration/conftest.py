"""Who is in most of these tests: users by their names, and the browser of one of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flask.testing import FlaskClient

from microblog.accounts.models import User


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
