"""Posts: writing them, and the lists that they are read in."""

from __future__ import annotations

from flask import Flask


def init_app(app: Flask) -> None:
    """Register the pages."""
    from microblog.posts import routes

    app.register_blueprint(routes.bp)
