"""Users: sign up, sign in, sign out, profiles; and which of them are operators."""

from __future__ import annotations

from flask import Flask


def init_app(app: Flask) -> None:
    """Register the pages and ``flask users``, and where a reader is sent who must sign in first."""
    from microblog.accounts import cli, routes
    from microblog.accounts import notices as notices
    from microblog.extensions import login

    app.register_blueprint(routes.bp)
    login.unauthorized_handler(routes.ask_to_sign_in)
    app.cli.add_command(cli.users)
