"""Import of posts: a file is uploaded and read by a task, and each post is imported at most once."""

from __future__ import annotations

from flask import Flask


def init_app(app: Flask) -> None:
    """Register the page, how users are told, and what goes with an account; Celery finds the tasks by itself."""
    from microblog.accounts import deletion
    from microblog.imports import cleanup, notifications, uploads  # noqa: F401 - registers a renderer
    from microblog.imports.routes import bp

    app.register_blueprint(bp)
    app.jinja_env.globals["has_refusals"] = uploads.has_refusals
    deletion.on_account_deletion(cleanup.delete_all_of)
