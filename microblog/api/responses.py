"""Response headers of the API: caching, ETag and rate limits."""

from __future__ import annotations

from typing import Any

from flask import Response, current_app, request
from werkzeug.exceptions import PreconditionFailed

from microblog.api.auth import who_asks
from microblog.errors import problem
from microblog.extensions import limiter

_READING = ("GET", "HEAD")

# By their names, as the OpenAPI document has them.
HEADERS: dict[str, dict[str, Any]] = {
    "ETag": {
        "description": "Names exactly this answer. Send it as If-None-Match: 304 says that nothing has changed.",
        "schema": {"type": "string"},
    },
    "Link": {
        "description": "The neighbouring pages, as rel=next and rel=prev.",
        "schema": {"type": "string"},
    },
    "Location": {"description": "The path of what was made.", "schema": {"type": "string"}},
    "Retry-After": {
        "description": "With 429 and 503: seconds until another try is worth it.",
        "schema": {"type": "integer"},
    },
    "WWW-Authenticate": {"description": "Which credentials are asked for.", "schema": {"type": "string"}},
    "X-RateLimit-Limit": {
        "description": "How many requests may be made in one period; of several limits, that of the operation itself.",
        "schema": {"type": "integer"},
    },
    "X-RateLimit-Remaining": {
        "description": "How many of these are left.",
        "schema": {"type": "integer", "minimum": 0},
    },
    "X-RateLimit-Reset": {
        "description": "When the period ends and they are all there again: seconds since 1970, UTC.",
        "schema": {"type": "number"},
    },
}
RATE_LIMIT = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")


@limiter.shared_limit(lambda: current_app.config["RATELIMIT_API"], scope="api", key_func=who_asks)
def _count() -> None:
    """One more request of the caller's."""


def limit_requests() -> None:
    """Let nobody pass who has made more than ``RATELIMIT_API`` requests (a ``before_request`` hook)."""
    if request.method != "OPTIONS":
        _count()


def tag(response: Response) -> Response:
    """Give what was read a strong ETag, and leave it out if its reader has it already (an ``after_request`` hook).

    It is made from the bytes that are sent, so it changes exactly when they do.
    """
    if request.method not in _READING or response.status_code != 200:
        return response
    response.add_etag()
    response.headers["Cache-Control"] = "private, no-cache"  # kept by nobody but the caller, who asks each time
    response.vary.update(("Authorization", "Accept-Language"))
    response.make_conditional(request)
    return problem(PreconditionFailed()) if response.status_code == PreconditionFailed.code else response
