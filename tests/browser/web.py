"""The application that gunicorn serves in the browser tests, with additions for the tests."""

from __future__ import annotations

from http import HTTPStatus
from typing import NoReturn

from flask import Flask, abort

import microblog


def create_app() -> Flask:
    """Create the application with a page that responds with any error."""
    app = microblog.create_app()
    app.add_url_rule("/broken/<int:code>", view_func=broken)
    import tests.browser.tasks  # noqa: F401 - register the task

    return app


def broken(code: int) -> NoReturn:
    """Respond with an error status. For 500, raise an exception instead of aborting."""
    if code == HTTPStatus.INTERNAL_SERVER_ERROR:
        raise RuntimeError("error requested by a test")
    abort(code)
