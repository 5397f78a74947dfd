"""Demo data for development: ``flask demo``."""

from __future__ import annotations

from flask import Flask


def init_app(app: Flask) -> None:
    """Register ``flask demo``."""
    from microblog.demo import cli

    app.cli.add_command(cli.create)
