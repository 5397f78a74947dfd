"""Rendering and sending mails, as tasks."""

from __future__ import annotations

from flask import Flask


def init_app(app: Flask) -> None:
    """Importing the room's table makes it known to the migrations, and what it tells of jobs to those who show them."""
    from microblog.mail import models as models
    from microblog.mail import traces as traces
