"""Users: sign up, sign in, sign out, profiles."""

from __future__ import annotations

from flask import Flask


def init_app(app: Flask) -> None:
    """Register the pages, and where a reader is sent who must sign in first."""
    from microblog.accounts import routes
    from microblog.extensions import login

    app.register_blueprint(routes.bp)
    login.unauthorized_handler(routes.ask_to_sign_in)
