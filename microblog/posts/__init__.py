"""Posts: writing, timelines and translations."""

from __future__ import annotations

from flask import Flask


def init_app(app: Flask) -> None:
    """Register the pages and their events."""
    from microblog.posts import translation
    from microblog.posts.events import post_labels
    from microblog.posts.routes import bp, translation_bp

    app.register_blueprint(bp)
    app.register_blueprint(translation_bp)
    app.jinja_env.globals.update(
        post_labels=post_labels,
        is_translatable=translation.is_translatable,
        language_name=translation.language_name,
    )
