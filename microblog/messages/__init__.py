"""Private messages between two users."""

from __future__ import annotations

from flask import Flask


def init_app(app: Flask) -> None:
    """Register the pages, and how users are told of a message."""
    from microblog.messages import notifications, routes  # noqa: F401 - registers a renderer

    app.register_blueprint(routes.bp)
