"""The JSON API, over the same features as the pages."""

from __future__ import annotations

from flask import Flask


def init_app(app: Flask) -> None:
    """Register the resources, their OpenAPI document, the page that shows it, and the page of one's tokens."""
    from microblog.accounts.signals import password_changed
    from microblog.api import (
        docs,
        exports,
        following,
        imports,
        jobs,
        messages,
        notifications,
        posts,
        routes,
        search,
        timelines,
        tokens,
        users,
    )
    from microblog.api.models import revoke_all
    from microblog.api.openapi import Api
    from microblog.extensions import csrf

    app.json.sort_keys = False  # type: ignore[attr-defined]  # each field where its schema has it
    api = Api(app)
    for resource in (
        *(tokens, users, following, posts, timelines, search),
        *(messages, notifications, exports, imports, jobs),
    ):
        csrf.exempt(resource.bp)  # no cookie counts here, so nobody else's page can act for a reader
        api.register(resource.bp)
    app.register_blueprint(docs.bp)
    app.register_blueprint(routes.bp)
    password_changed.connect(revoke_all)
