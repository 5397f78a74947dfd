"""Private messages between two users."""

from __future__ import annotations

from flask import Flask


def init_app(app: Flask) -> None:
    """Register the pages and the renderer of message notifications."""
    from microblog.messages import notifications, routes  # noqa: F401 - registers a renderer

    app.register_blueprint(routes.bp)
