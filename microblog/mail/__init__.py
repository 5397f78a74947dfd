"""Rendering and sending mails, as tasks."""

from __future__ import annotations

from flask import Flask


def init_app(app: Flask) -> None:
    """Nothing to register: importing the room's table makes it known to the migrations."""
    from microblog.mail import models as models
