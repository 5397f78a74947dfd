"""Posts: writing them, the lists that they are read in, and their translations."""

from __future__ import annotations

from flask import Flask


def init_app(app: Flask) -> None:
    """Register the pages, and what they hear of while they are open."""
    from microblog.posts import live, routes, translation
    from microblog.posts import permalink as permalink  # pages of the blueprint's

    app.jinja_env.globals["new_posts_labels"] = live.labels
    app.register_blueprint(routes.bp)
    translation.init_app(app)
