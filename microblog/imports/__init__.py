"""The import of posts: a file is uploaded, read back by a task, and each post comes in at most once."""

from __future__ import annotations

from flask import Flask


def init_app(app: Flask) -> None:
    """Register the page, how users are told, and what goes with an account; Celery finds the tasks by itself."""
    from microblog.accounts import deletion
    from microblog.imports import notices as notices
    from microblog.imports import sweep, uploads
    from microblog.imports.routes import bp

    app.register_blueprint(bp)
    app.jinja_env.globals["has_refusals"] = uploads.has_refusals
    deletion.also_deletes(sweep.delete_all_of)
