"""/api/search: search posts."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from flask_babel import gettext as _

from microblog.api.auth import require_token
from microblog.api.blueprint import Blueprint, abort_invalid
from microblog.api.responses import PageResponse, page_response
from microblog.api.schemas import SearchPageSchema, SearchQuerySchema
from microblog.api.serializers import post_json
from microblog.search.find import find
from microblog.search.query import Query

bp = Blueprint(
    "api_search",
    __name__,
    url_prefix="/api/search",
    tag="search",
    description="Search posts by words.",
    guard=require_token,
)


@bp.get("")
@bp.lists(SearchPageSchema, SearchQuerySchema)
@bp.refuses(HTTPStatus.UNAUTHORIZED)
def index(query: dict[str, Any]) -> PageResponse:
    """List the posts that contain the words of `q`, best match first."""
    parsed = Query.parse(query["q"])
    if not parsed:
        sentence = _("There is no word in this: type a letter, a digit or an emoji.")
        abort_invalid({"query": {"q": [sentence]}})
    found = find(parsed, query.get("before"), query.get("after"), query.get("limit"))
    body, headers = page_response(query, found.page, map(post_json, found.page.items))
    return body | {"truncated": found.more}, headers
