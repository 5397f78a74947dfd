"""The JSON API."""

from __future__ import annotations

from flask import Flask


def init_app(app: Flask) -> None:
    """Register the resources, their OpenAPI document, the page that shows it, and the page of a user's tokens."""
    from microblog.accounts.models import password_changed
    from microblog.api import jobs, messages, notifications, openapi, posts, token_pages, tokens, users
    from microblog.api.models import revoke_all
    from microblog.api.openapi import Api
    from microblog.extensions import csrf

    app.json.sort_keys = False  # type: ignore[attr-defined]  # fields in the order of their schema
    api = Api(app)
    for resource in (
        *(tokens.bp, users.bp, users.following_bp, posts.bp, posts.timelines_bp, posts.search_bp),
        *(messages.bp, notifications.bp, jobs.exports_bp, jobs.imports_bp, jobs.bp),
    ):
        csrf.exempt(resource)  # the API ignores cookies, so a page of another site cannot act for a user
        api.register(resource)
    app.register_blueprint(openapi.bp)
    app.register_blueprint(token_pages.bp)
    password_changed.connect(revoke_all)
