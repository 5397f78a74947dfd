"""A browser whose requests share nothing but what a browser carries from one to the next: its cookies."""

from __future__ import annotations

import re
from typing import Any

from flask.testing import FlaskClient


class Client(FlaskClient):
    """Gives each request an app context of its own.

    Flask would let it use the one that the test has pushed, and `flask.g` with it: whoever was signed in for one
    request would be for the next, whatever its cookies say.
    """

    def open(self, *args: Any, **kwargs: Any) -> Any:
        """As FlaskClient.open()."""
        with self.application.app_context():
            return super().open(*args, **kwargs)


def without_csrf_tokens(page: str) -> str:
    """Return the page without its CSRF tokens, which are signed with the second in which they are made."""
    return re.sub(r'(name="csrf_token"[^>]* value=)"[^"]*"', r"\1", page)
