"""Development only: ``make run`` and the mailbox at /dev/mail."""

from __future__ import annotations

from flask import Flask


def init_app(app: Flask) -> None:
    """Register the mail viewer at /dev/mail. create_app() calls this in development only."""
    from microblog.development.routes import blueprint

    app.register_blueprint(blueprint)
