"""Export of all posts of a user: requested, built, stored, mailed, downloaded, expired."""

from __future__ import annotations

import contextlib

from flask import Flask


def init_app(app: Flask) -> None:
    """Register the routes, the job and the account deletion handler; Celery discovers the tasks."""
    from microblog.exports import archive, cleanup, services  # noqa: F401 - registered on import
    from microblog.exports.routes import bp
    from microblog.security import allow_form_redirect
    from microblog.storage import open_storage

    app.register_blueprint(bp)
    with contextlib.suppress(PermissionError):  # the AWS settings are invalid, which ends web servers and workers
        if origin := open_storage(app.config["EXPORT_STORAGE_URL"]).download_origin():
            allow_form_redirect(app, origin)
