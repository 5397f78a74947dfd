"""Private messages: what one user writes to another, for nobody else to read."""

from __future__ import annotations

from flask import Flask


def init_app(app: Flask) -> None:
    """Register the pages, and how users are told of a message."""
    from microblog.messages import notices as notices
    from microblog.messages import routes

    app.register_blueprint(routes.bp)
