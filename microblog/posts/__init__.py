"""Posts: writing, timelines and translations."""

from __future__ import annotations

from flask import Flask


def init_app(app: Flask) -> None:
    """Register the pages and their events."""
    from microblog.posts import translation
    from microblog.posts.events import post_labels
    from microblog.posts.routes import bp

    app.jinja_env.globals["post_labels"] = post_labels
    app.register_blueprint(bp)
    translation.init_app(app)
