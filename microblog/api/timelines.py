"""/api/timelines and /api/users/…/posts: posts, newest first."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from microblog.api import lists
from microblog.api.answers import post_json, user_called
from microblog.api.auth import caller, require_token
from microblog.api.blueprint import Blueprint
from microblog.api.schemas import PostPageSchema
from microblog.paging import Page
from microblog.posts import timeline
from microblog.posts.models import Post

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
def home(query: dict[str, Any]) -> lists.Answer:
    """List what you and those whom you follow wrote."""
    return _posts(query, timeline.home_of(caller(), query.get("before"), query.get("after"), query.get("limit")))


@bp.get("/timelines/explore")
@bp.lists(PostPageSchema)
@bp.refuses(HTTPStatus.UNAUTHORIZED)
def explore(query: dict[str, Any]) -> lists.Answer:
    """List what everybody wrote."""
    return _posts(query, timeline.everyones_posts(query.get("before"), query.get("after"), query.get("limit")))


@bp.get("/users/<username>/posts")
@bp.lists(PostPageSchema)
@bp.refuses(HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND)
def of_user(query: dict[str, Any], username: str) -> lists.Answer:
    """List what a user wrote."""
    author = user_called(username)
    return _posts(query, timeline.posts_of(author, query.get("before"), query.get("after"), query.get("limit")))


def _posts(query: dict[str, Any], page: Page[Post]) -> lists.Answer:
    return lists.newest_first(query, page, map(post_json, page.items))
