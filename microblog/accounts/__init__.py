"""Users: registration, sign-in, profiles, followers and the operator role."""

from __future__ import annotations

from flask import Flask


def init_app(app: Flask) -> None:
    """Register the pages, ``flask users`` and the redirect to the sign-in page."""
    from microblog.accounts import (
        cli,
        last_seen,
        notifications,  # noqa: F401 - registers a renderer
        preferences,
        settings_routes,
    )
    from microblog.accounts.avatars import avatar_of
    from microblog.accounts.routes import bp, redirect_to_sign_in, reset_bp
    from microblog.extensions import login

    for blueprint in (bp, reset_bp, settings_routes.bp):
        app.register_blueprint(blueprint)
    app.jinja_env.globals["avatar_of"] = avatar_of
    last_seen.init_app(app)
    preferences.init_app(app)
    login.unauthorized_handler(redirect_to_sign_in)
    app.cli.add_command(cli.users)
