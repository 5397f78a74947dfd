"""Export of all posts of a user: requested, built, stored, mailed, downloaded, expired."""

from __future__ import annotations

from flask import Flask


def init_app(app: Flask) -> None:
    """Register the routes, the job and the account deletion handler; Celery discovers the tasks."""
    from microblog.exports import archive, cleanup, services  # noqa: F401 - registered on import
    from microblog.exports.routes import bp

    app.register_blueprint(bp)
