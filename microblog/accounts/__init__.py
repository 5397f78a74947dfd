"""Users: sign up, sign in, sign out, profiles; and which of them are operators."""

from __future__ import annotations

from flask import Flask


def init_app(app: Flask) -> None:
    """Register the pages and ``flask users``, and where a reader is sent who must sign in first."""
    from microblog.accounts import account_routes, cli, last_seen, preferences, reset_routes, routes
    from microblog.accounts import notices as notices  # tells of new followers
    from microblog.accounts import popup as popup  # a page of the blueprint's
    from microblog.accounts.avatars import picture_of
    from microblog.extensions import login

    for blueprint in (routes.bp, reset_routes.bp, account_routes.bp):
        app.register_blueprint(blueprint)
    app.jinja_env.globals["picture_of"] = picture_of
    last_seen.init_app(app)
    preferences.init_app(app)
    login.unauthorized_handler(routes.ask_to_sign_in)
    app.cli.add_command(cli.users)
