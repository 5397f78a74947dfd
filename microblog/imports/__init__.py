"""Import of posts: a user uploads a file, a task reads it, and each post is imported at most once."""

from __future__ import annotations

from flask import Flask


def init_app(app: Flask) -> None:
    """Register the routes and the account deletion handler; Celery discovers the tasks."""
    from microblog.imports import uploads
    from microblog.imports.routes import bp

    app.register_blueprint(bp)
    app.jinja_env.globals["has_rejected_entries"] = uploads.has_rejected_entries
