"""Posts: writing them, the lists that they are read in, and their translations."""

from __future__ import annotations

from flask import Flask


def init_app(app: Flask) -> None:
    """Register the pages."""
    from microblog.posts import routes, translation

    app.register_blueprint(routes.bp)
    translation.init_app(app)
