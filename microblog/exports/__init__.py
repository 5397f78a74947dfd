"""Export of all posts of a user: requested, built, stored, mailed, downloaded, expired."""

from __future__ import annotations

from flask import Flask


def init_app(app: Flask) -> None:
    """Register the routes and the job; Celery discovers the tasks."""
    from microblog.accounts import deletion
    from microblog.exports import archive, cleanup  # noqa: F401 - registered on import
    from microblog.exports.routes import bp
    from microblog.exports.services import export_job
    from microblog.taskqueue.launch import register_job

    app.register_blueprint(bp)
    register_job("export_posts", export_job)
    deletion.on_account_deletion(cleanup.delete_archives_of_user)
