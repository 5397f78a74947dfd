"""The JSON API."""

from __future__ import annotations

from flask import Flask


def init_app(app: Flask) -> None:
    """Register the resources, their OpenAPI document, the page that shows it, and the page of a user's tokens."""
    from microblog.accounts.signals import password_changed
    from microblog.api import (
        exports,
        following,
        imports,
        jobs,
        messages,
        notifications,
        openapi,
        posts,
        search,
        timelines,
        token_pages,
        tokens,
        users,
    )
    from microblog.api.models import revoke_all
    from microblog.api.openapi import Api
    from microblog.extensions import csrf

    app.json.sort_keys = False  # type: ignore[attr-defined]  # fields in the order of their schema
    api = Api(app)
    for resource in (
        *(tokens, users, following, posts, timelines, search),
        *(messages, notifications, exports, imports, jobs),
    ):
        csrf.exempt(resource.bp)  # the API ignores cookies, so a page of another site cannot act for a user
        api.register(resource.bp)
    app.register_blueprint(openapi.bp)
    app.register_blueprint(token_pages.bp)
    password_changed.connect(revoke_all)
