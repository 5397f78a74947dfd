"""Rendering and sending of mails by tasks."""

from __future__ import annotations

from flask import Flask


def init_app(app: Flask) -> None:
    """Importing the room's table makes it known to the migrations, and what it tells of jobs to those who show them."""
    from microblog.mail import models, sending  # noqa: F401 - a table, and what is shown of a job
