"""Errors that nobody expected, of pages and of tasks, mailed to ``ADMINS``: stored, throttled, sent as a task."""

from __future__ import annotations

from flask import Flask


def init_app(app: Flask) -> None:
    """Listen for errors, if there is anybody to tell of them."""
    from microblog.error_reports import models as models
    from microblog.error_reports import watch

    if app.config["ADMINS"]:
        watch.init_app(app)
