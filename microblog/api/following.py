"""/api/users/…/followers and …/following."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from flask import abort
from flask_babel import gettext as _

from microblog.accounts.services import UserUnavailable, follow_user, followed_by, followers_of, unfollow_user
from microblog.api.auth import caller, require_token
from microblog.api.blueprint import Blueprint
from microblog.api.responses import PageResponse, page_response
from microblog.api.schemas import UserPageSchema
from microblog.api.serializers import find_user, require_self, user_json
from microblog.security import limit_user

bp = Blueprint("api_following", __name__, url_prefix="/api/users", tag="users", guard=require_token)


@bp.get("/<username>/followers")
@bp.lists(UserPageSchema)
@bp.refuses(HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND)
def followers(query: dict[str, Any], username: str) -> PageResponse:
    """List the users that follow a user, newest first."""
    page = followers_of(find_user(username), query.get("before"), query.get("after"), query.get("limit"))
    return page_response(query, page, (user_json(follow.follower) for follow in page.items))


@bp.get("/<username>/following")
@bp.lists(UserPageSchema)
@bp.refuses(HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND)
def following(query: dict[str, Any], username: str) -> PageResponse:
    """List the users that a user follows, newest first."""
    page = followed_by(find_user(username), query.get("before"), query.get("after"), query.get("limit"))
    return page_response(query, page, (user_json(follow.followed) for follow in page.items))


@bp.put("/<username>/following/<followed>")
@bp.response(HTTPStatus.NO_CONTENT)
@bp.refuses(HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT)
@limit_user("RATELIMIT_FOLLOW", lambda: caller().id)
def follow(username: str, followed: str) -> None:
    """Follow a user.

    Has no effect if you already follow the user. `username` must be your own.
    """
    follower, user = require_self(username), find_user(followed)
    if follower.id == user.id:
        abort(HTTPStatus.CONFLICT, _("You cannot follow yourself; what you write is in your home timeline anyway."))
    try:
        follow_user(follower, user)
    except UserUnavailable:
        abort(HTTPStatus.NOT_FOUND, _("There is nobody of this name."))


@bp.delete("/<username>/following/<followed>")
@bp.response(HTTPStatus.NO_CONTENT)
@bp.refuses(HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND)
@limit_user("RATELIMIT_FOLLOW", lambda: caller().id)
def unfollow(username: str, followed: str) -> None:
    """Unfollow a user.

    Has no effect if you do not follow the user. `username` must be your own.
    """
    unfollow_user(require_self(username), find_user(followed))
