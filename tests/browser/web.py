"""What gunicorn serves in the browser's tests: the application itself, which also knows what only the tests use."""

from __future__ import annotations

from http import HTTPStatus
from typing import NoReturn

from flask import Flask, abort

import microblog


def create_app() -> Flask:
    """As microblog.create_app(), and with a page that breaks as it is told to."""
    app = microblog.create_app()
    app.add_url_rule("/broken/<int:code>", view_func=broken)
    from tests.browser import tasks as _tasks  # noqa: F401 - registers it

    return app


def broken(code: int) -> NoReturn:
    """An error of any kind. A fault of ours is not told by its number, but happens."""
    if code == HTTPStatus.INTERNAL_SERVER_ERROR:
        raise RuntimeError("a test asked for a fault")
    abort(code)
