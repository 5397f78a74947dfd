"""Rendering and sending of mails by tasks."""

from __future__ import annotations

from flask import Flask


def init_app(app: Flask) -> None:
    """Register the table with the migrations, and the mails in the details of jobs."""
    from microblog.mail import models, sending  # noqa: F401 - a table, and what is shown of a job
