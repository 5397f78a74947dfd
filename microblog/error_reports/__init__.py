"""Reports of unexpected errors, mailed to ``ADMINS``: stored, throttled, sent by a task."""

from __future__ import annotations

from flask import Flask


def init_app(app: Flask) -> None:
    """Connect the error handlers if ``ADMINS`` names any recipient."""
    from microblog.error_reports import handlers, models  # noqa: F401 - registered on import

    if app.config["ADMINS"]:
        handlers.init_app(app)
