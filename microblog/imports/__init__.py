"""The import of posts: a file is uploaded, read back by a task, and each post comes in at most once."""

from __future__ import annotations

from flask import Flask


def init_app(app: Flask) -> None:
    """Register the page; Celery finds the tasks by itself."""
    from microblog.imports.routes import bp

    app.register_blueprint(bp)
