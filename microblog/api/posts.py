"""/api/posts, /api/timelines, /api/users/…/posts and /api/search: write, list, find and translate posts."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from flask import abort, url_for
from flask_babel import gettext as _

from microblog.api.auth import caller
from microblog.api.blueprint import Blueprint, abort_invalid
from microblog.api.responses import PageResponse, page_request, page_response
from microblog.api.schemas import (
    PostPageSchema,
    PostRequestSchema,
    PostSchema,
    SearchPageSchema,
    SearchQuerySchema,
    TranslationSchema,
)
from microblog.api.serializers import find_user
from microblog.i18n import language_tag
from microblog.pagination import Page
from microblog.posts import translation
from microblog.posts.models import Post
from microblog.posts.queries import explore_timeline, find_post, home_timeline, profile_timeline
from microblog.posts.services import create_post, delete_post
from microblog.posts.translation import find_translation, translatable
from microblog.rate_limits import limit_user
from microblog.search.find import find
from microblog.search.query import Query
from microblog.validators import is_blank

bp = Blueprint(
    "api_posts",
    __name__,
    url_prefix="/api/posts",
    tag="posts",
    description="Individual posts, yours and those of other users.",
)

timelines_bp = Blueprint(
    "api_timelines",
    __name__,
    url_prefix="/api",
    tag="timelines",
    description="Posts, newest first.",
)
search_bp = Blueprint(
    "api_search",
    __name__,
    url_prefix="/api/search",
    tag="search",
    description="Search posts by words.",
)


@bp.post("")
@bp.arguments(PostRequestSchema)
@bp.response(HTTPStatus.CREATED, PostSchema, headers={"Location": "Location"})
@limit_user("RATELIMIT_POST", lambda: caller().id)
def create(data: dict[str, Any]) -> tuple[Post, dict[str, str]]:
    """Create a post."""
    body = data["body"].strip()
    if is_blank(body):
        abort_invalid({"json": {"body": [_("A post needs at least one character that is not a space.")]}})
    post = create_post(caller().id, body)
    return post, {"Location": url_for(".show", post_id=post.id)}


@bp.get("/<int:post_id>")
@bp.response(HTTPStatus.OK, PostSchema)
@bp.error_responses(HTTPStatus.NOT_FOUND)
def show(post_id: int) -> Post:
    """Show a post."""
    return _post(post_id)


@bp.delete("/<int:post_id>")
@bp.response(HTTPStatus.NO_CONTENT)
@bp.error_responses(HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND)
def delete(post_id: int) -> None:
    """Delete one of your posts permanently."""
    if not delete_post(_post(post_id).id, caller().id):
        abort(HTTPStatus.FORBIDDEN, _("You may only delete what you wrote."))


@bp.post("/<int:post_id>/translation")
@bp.response(HTTPStatus.OK, TranslationSchema)
@bp.error_responses(HTTPStatus.NOT_FOUND, HTTPStatus.BAD_GATEWAY)
@limit_user("RATELIMIT_TRANSLATE", lambda: caller().id)
def translate(post_id: int) -> dict[str, Any]:
    """Translate a post into your language.

    The language is that of your profile, or else taken from the `Accept-Language` header.
    """
    translation.translate(translatable(post_id))
    language = language_tag()
    body = find_translation(post_id, language) or abort(HTTPStatus.NOT_FOUND, _("There is no such post."))
    return {"language": language, "body": body}


def _post(post_id: int) -> Post:
    return find_post(post_id) or abort(HTTPStatus.NOT_FOUND, _("There is no such post."))


@timelines_bp.get("/timelines/home")
@timelines_bp.lists(PostPageSchema)
def home(query: dict[str, Any]) -> PageResponse:
    """List your posts and those of the users that you follow, newest first."""
    return _page(query, home_timeline(caller(), page_request(query)))


@timelines_bp.get("/timelines/explore")
@timelines_bp.lists(PostPageSchema)
def explore(query: dict[str, Any]) -> PageResponse:
    """List the posts of all users, newest first."""
    return _page(query, explore_timeline(page_request(query)))


@timelines_bp.get("/users/<username>/posts")
@timelines_bp.lists(PostPageSchema)
@timelines_bp.error_responses(HTTPStatus.NOT_FOUND)
def of_user(query: dict[str, Any], username: str) -> PageResponse:
    """List the posts of a user, newest first."""
    author = find_user(username)
    return _page(query, profile_timeline(author, page_request(query)))


def _page(query: dict[str, Any], page: Page[Post]) -> PageResponse:
    return page_response(query, page, page.items)


@search_bp.get("")
@search_bp.lists(SearchPageSchema, SearchQuerySchema)
def search(query: dict[str, Any]) -> PageResponse:
    """List the posts that contain the words of `q`, best match first."""
    parsed = Query.parse(query["q"])
    if not parsed:
        message = _("There is no word in this: type a letter, a digit or an emoji.")
        abort_invalid({"query": {"q": [message]}})
    found = find(parsed, page_request(query))
    body, headers = page_response(query, found.page, found.page.items)
    return body | {"truncated": found.more}, headers
