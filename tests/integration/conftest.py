"""Fixtures of the integration tests: users, the browsers of two of them, and a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from flask.testing import FlaskClient

from microblog.accounts.models import User
from microblog.extensions import db
from tests.support import external
from tests.support.terminal import Tmux


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
    """A browser in which Susan is signed in."""
    return signed_in(susan)


@pytest.fixture
def operator(make_user: Callable[..., User], signed_in: Callable[..., FlaskClient]) -> FlaskClient:
    """A browser in which an operator is signed in."""
    user = make_user("olga")
    user.is_operator = True
    db.session.commit()
    return signed_in(user)


@pytest.fixture
def terminal(environment: dict[str, str]) -> Iterator[Tmux]:
    """A shell in a terminal, 80 columns by 24 lines."""
    external.TMUX.require()
    terminal = Tmux(environment)
    yield terminal
    terminal.stop()
