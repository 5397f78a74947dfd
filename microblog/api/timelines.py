"""/api/timelines and /api/users/…/posts: posts, newest first."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from microblog.api.auth import caller, require_token
from microblog.api.blueprint import Blueprint
from microblog.api.responses import PageResponse, page_response
from microblog.api.schemas import PostPageSchema
from microblog.api.serializers import find_user, post_json
from microblog.pagination import Page
from microblog.posts.models import Post
from microblog.posts.queries import explore_timeline, home_timeline, profile_timeline

bp = Blueprint(
    "api_timelines",
    __name__,
    url_prefix="/api",
    tag="timelines",
    description="Posts, newest first.",
    guard=require_token,
)


@bp.get("/timelines/home")
@bp.lists(PostPageSchema)
@bp.refuses(HTTPStatus.UNAUTHORIZED)
def home(query: dict[str, Any]) -> PageResponse:
    """List your posts and those of the users that you follow, newest first."""
    return _posts(query, home_timeline(caller(), query.get("before"), query.get("after"), query.get("limit")))


@bp.get("/timelines/explore")
@bp.lists(PostPageSchema)
@bp.refuses(HTTPStatus.UNAUTHORIZED)
def explore(query: dict[str, Any]) -> PageResponse:
    """List the posts of all users, newest first."""
    return _posts(query, explore_timeline(query.get("before"), query.get("after"), query.get("limit")))


@bp.get("/users/<username>/posts")
@bp.lists(PostPageSchema)
@bp.refuses(HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND)
def of_user(query: dict[str, Any], username: str) -> PageResponse:
    """List the posts of a user, newest first."""
    author = find_user(username)
    return _posts(query, profile_timeline(author, query.get("before"), query.get("after"), query.get("limit")))


def _posts(query: dict[str, Any], page: Page[Post]) -> PageResponse:
    return page_response(query, page, map(post_json, page.items))
