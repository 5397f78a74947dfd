"""Export of everything a user wrote: requested, built, stored, mailed, downloaded, expired."""

from __future__ import annotations

from flask import Flask


def init_app(app: Flask) -> None:
    """Register the routes; Celery finds the tasks by itself."""
    from microblog.accounts import deletion
    from microblog.exports import archive, cleanup, notifications  # noqa: F401 - they register what they provide
    from microblog.exports.routes import bp

    app.register_blueprint(bp)
    deletion.on_account_deletion(cleanup.delete_all_of)
