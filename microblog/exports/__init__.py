"""The archive of everything a user wrote: asked for, built, stored, mailed, downloaded, expired."""

from __future__ import annotations

from flask import Flask


def init_app(app: Flask) -> None:
    """Register the routes; Celery finds the tasks by itself."""
    from microblog.accounts import deletion
    from microblog.exports import notices as notices
    from microblog.exports import sweep
    from microblog.exports import traces as traces
    from microblog.exports.routes import bp

    app.register_blueprint(bp)
    deletion.also_deletes(sweep.delete_all_of)
