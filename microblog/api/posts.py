"""/api/posts: write a post, read one, also in another language, delete one's own."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from flask import abort, url_for
from flask_babel import gettext as _

from microblog.api.answers import post_json
from microblog.api.auth import caller, require_token
from microblog.api.blueprint import Blueprint, refuse_fields
from microblog.api.schemas import PostRequestSchema, PostSchema, TranslationSchema
from microblog.limits import limit_user
from microblog.locale import language_tag
from microblog.posts import timeline, writing
from microblog.posts.models import Post
from microblog.posts.translation import asking, once
from microblog.text import is_blank

bp = Blueprint(
    "api_posts",
    __name__,
    url_prefix="/api/posts",
    tag="posts",
    description="What you and others wrote, one by one.",
    guard=require_token,
)


@bp.post("")
@bp.arguments(PostRequestSchema)
@bp.response(HTTPStatus.CREATED, PostSchema, headers={"Location": "Location"})
@bp.refuses(HTTPStatus.UNAUTHORIZED)
@limit_user("RATELIMIT_POST", lambda: caller().id)
def create(written: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Write a post."""
    body = written["body"].strip()
    if is_blank(body):
        refuse_fields({"json": {"body": [_("A post needs at least one character that is not a space.")]}})
    post = writing.write(caller().id, body)
    return post_json(post), {"Location": url_for(".show", post_id=post.id)}


@bp.get("/<int:post_id>")
@bp.response(HTTPStatus.OK, PostSchema)
@bp.refuses(HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND)
def show(post_id: int) -> dict[str, Any]:
    """Show a post."""
    return post_json(_post(post_id))


@bp.delete("/<int:post_id>")
@bp.response(HTTPStatus.NO_CONTENT)
@bp.refuses(HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND)
def delete(post_id: int) -> None:
    """Delete a post of yours, for good."""
    if not writing.delete(_post(post_id).id, caller().id):
        abort(HTTPStatus.FORBIDDEN, _("You may only delete what you wrote."))


@bp.post("/<int:post_id>/translation")
@bp.response(HTTPStatus.OK, TranslationSchema)
@bp.refuses(HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND, HTTPStatus.BAD_GATEWAY)
@limit_user("RATELIMIT_TRANSLATE", lambda: caller().id)
def translate(post_id: int) -> dict[str, Any]:
    """Translate a post into your language: that of your profile, else what you ask for in Accept-Language."""
    asking.translate(asking.translatable(post_id))
    language = language_tag()
    body = once.find(post_id, language) or abort(HTTPStatus.NOT_FOUND, _("There is no such post."))
    return {"language": language, "body": body}


def _post(post_id: int) -> Post:
    return timeline.find(post_id) or abort(HTTPStatus.NOT_FOUND, _("There is no such post."))
