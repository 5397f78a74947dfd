"""Full-text search of posts."""

from __future__ import annotations

from flask import Flask


def init_app(app: Flask) -> None:
    """Register the page and ``flask search``."""
    from microblog.search import cli, routes

    app.register_blueprint(routes.bp)
    app.cli.add_command(cli.search)
