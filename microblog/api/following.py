"""/api/users/…/followers and …/following: who follows whom."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from flask import abort
from flask_babel import gettext as _

from microblog.accounts import followers as people
from microblog.api import lists
from microblog.api.answers import myself, user_called, user_json
from microblog.api.auth import caller, require_token
from microblog.api.blueprint import Blueprint
from microblog.api.schemas import UserPageSchema
from microblog.limits import limit_user

bp = Blueprint("api_following", __name__, url_prefix="/api/users", tag="users", guard=require_token)


@bp.get("/<username>/followers")
@bp.lists(UserPageSchema)
@bp.refuses(HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND)
def followers(query: dict[str, Any], username: str) -> lists.Answer:
    """List who follows a user, the newest first."""
    page = people.followers_of(user_called(username), query.get("before"), query.get("after"), query.get("limit"))
    return lists.newest_first(query, page, (user_json(follow.follower) for follow in page.items))


@bp.get("/<username>/following")
@bp.lists(UserPageSchema)
@bp.refuses(HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND)
def following(query: dict[str, Any], username: str) -> lists.Answer:
    """List whom a user follows, the newest first."""
    page = people.followed_by(user_called(username), query.get("before"), query.get("after"), query.get("limit"))
    return lists.newest_first(query, page, (user_json(follow.followed) for follow in page.items))


@bp.put("/<username>/following/<followed>")
@bp.response(HTTPStatus.NO_CONTENT)
@bp.refuses(HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT)
@limit_user("RATELIMIT_FOLLOW", lambda: caller().id)
def follow(username: str, followed: str) -> None:
    """Follow a user; it is no fault if you do already. `username` is yours."""
    follower, user = myself(username), user_called(followed)
    if follower.id == user.id:
        abort(HTTPStatus.CONFLICT, _("You cannot follow yourself; what you write is in your home timeline anyway."))
    try:
        people.follow(follower, user)
    except people.NobodyThere:
        abort(HTTPStatus.NOT_FOUND, _("There is nobody of this name."))


@bp.delete("/<username>/following/<followed>")
@bp.response(HTTPStatus.NO_CONTENT)
@bp.refuses(HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND)
@limit_user("RATELIMIT_FOLLOW", lambda: caller().id)
def unfollow(username: str, followed: str) -> None:
    """No longer follow a user; it is no fault if you do not. `username` is yours."""
    people.unfollow(myself(username), user_called(followed))
