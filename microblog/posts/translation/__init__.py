"""Translation of posts into the reader's language by the service at ``TRANSLATE_URL``."""

from __future__ import annotations

from flask import Flask


def init_app(app: Flask) -> None:
    """Register the pages and the template functions."""
    from microblog.posts.translation import routes, service

    app.register_blueprint(routes.bp)
    app.jinja_env.globals.update(is_translatable=service.is_translatable, language_name=service.language_name)
