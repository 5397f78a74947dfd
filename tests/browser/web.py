"""What gunicorn serves in the browser's tests: the application itself, which also knows the tests' own task."""

from __future__ import annotations

from flask import Flask

import microblog


def create_app() -> Flask:
    """As microblog.create_app()."""
    app = microblog.create_app()
    from tests.browser import tasks as _tasks  # noqa: F401 - registers it

    return app
