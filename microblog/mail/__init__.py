"""Rendering and sending of mails by tasks."""

from __future__ import annotations

from flask import Flask


def init_app(app: Flask) -> None:
    """Register the table of sent mails with the migrations, and the mails as job details."""
    from microblog.mail import models, sending  # noqa: F401 - registered on import
