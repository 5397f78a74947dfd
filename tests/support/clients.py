"""A test client whose requests share only their cookies, as those of a browser do."""

from __future__ import annotations

import io
import re
from typing import Any, NoReturn

import pytest
from flask.testing import FlaskClient


class Client(FlaskClient):
    """A test client that pushes a separate app context for each request.

    Flask would reuse the context that the test has pushed, and `flask.g` with it: the user of one request would stay
    signed in for the next, whatever its cookies are.
    """

    def open(self, *args: Any, **kwargs: Any) -> Any:
        """Send a request in a new app context, otherwise like FlaskClient.open()."""
        with self.application.app_context():
            return super().open(*args, **kwargs)


class UnreadBody(io.BytesIO):
    """A request body that fails the test if it is read."""

    def read(self, *_: object) -> NoReturn:
        pytest.fail("the body was read")

    readinto = read


def without_csrf_tokens(page: str) -> str:
    """Return the page without its CSRF tokens, whose signature contains the time of their creation."""
    return re.sub(r'(name="csrf_token"[^>]* value=)"[^"]*"', r"\1", page)
