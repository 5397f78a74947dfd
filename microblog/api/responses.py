"""Responses of the API: pages of lists, and the headers for links, caching, ETag and rate limits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from flask import Response, current_app, request, url_for
from werkzeug.exceptions import PreconditionFailed

from microblog.api.auth import rate_limit_key
from microblog.errors import problem
from microblog.extensions import limiter
from microblog.pagination import Page, PageRequest

PageResponse = tuple[dict[str, Any], dict[str, str]]

_SAFE_METHODS = ("GET", "HEAD")

# Response headers by name, as in the OpenAPI document.
HEADERS: dict[str, dict[str, Any]] = {
    "ETag": {
        "description": "Identifies this exact response. Send it as If-None-Match: 304 means that nothing has changed.",
        "schema": {"type": "string"},
    },
    "Link": {
        "description": "The adjacent pages, as rel=next and rel=prev.",
        "schema": {"type": "string"},
    },
    "Location": {"description": "The path of the new resource.", "schema": {"type": "string"}},
    "Retry-After": {
        "description": "With 429 and 503: seconds to wait before the next attempt.",
        "schema": {"type": "integer"},
    },
    "WWW-Authenticate": {"description": "The required credentials.", "schema": {"type": "string"}},
    "X-RateLimit-Limit": {
        "description": "The number of requests allowed per period; of several limits, that of the operation itself.",
        "schema": {"type": "integer"},
    },
    "X-RateLimit-Remaining": {
        "description": "The number of requests left in this period.",
        "schema": {"type": "integer", "minimum": 0},
    },
    "X-RateLimit-Reset": {
        "description": "The end of the period, when all requests are available again: seconds since 1970, UTC.",
        "schema": {"type": "number"},
    },
}
RATE_LIMIT = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")


@limiter.shared_limit(lambda: current_app.config["RATELIMIT_API"], scope="api", key_func=rate_limit_key)
def _count() -> None:
    """Count a request of the caller."""


def limit_requests() -> None:
    """Reject a caller's requests beyond ``RATELIMIT_API``, except for OPTIONS (a ``before_request`` hook)."""
    if request.method != "OPTIONS":
        _count()


def add_etag(response: Response) -> Response:
    """Add a strong ETag to a response, and omit a body that the client already has (an ``after_request`` hook).

    Applies to successful GET and HEAD requests. The ETag is computed from the bytes that are sent, so it changes
    exactly when they do.
    """
    if request.method not in _SAFE_METHODS or response.status_code != 200:
        return response
    response.add_etag()
    response.headers["Cache-Control"] = "private, no-cache"  # cached by the client only, which revalidates it each time
    response.vary.update(("Authorization", "Accept-Language"))
    response.make_conditional(request)
    return problem(PreconditionFailed()) if response.status_code == PreconditionFailed.code else response


def page_request(query: Mapping[str, Any]) -> PageRequest:
    """Return the page that a parsed query string names."""
    return PageRequest(query.get("before"), query.get("after"), query.get("limit"))


def page_response(query: Mapping[str, Any], page: Page[Any], items: Iterable[Any]) -> PageResponse:
    """Return the body and headers of `page`, for a view decorated with Blueprint.lists().

    `query` is the parsed query string; `items` are the items of the page, in the form that its schema expects.
    """
    links = {"next": _path(query, page.next, page.ascending), "prev": _path(query, page.previous, not page.ascending)}
    header = ", ".join(f'<{path}>; rel="{relation}"' for relation, path in links.items() if path)
    return {"items": list(items), **links}, {"Link": header} if header else {}


def _path(query: Mapping[str, Any], key: str | None, after: bool) -> str | None:
    if key is None:
        return None
    parameters = {name: value for name, value in query.items() if name not in ("before", "after")}
    parameters["after" if after else "before"] = key
    return url_for(request.endpoint or "", **{**(request.view_args or {}), **parameters})
