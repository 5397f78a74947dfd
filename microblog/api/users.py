"""/api/users: register, read profiles, change one's own, follow."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from flask import abort, url_for
from flask_babel import gettext as _

from microblog.accounts.models import User
from microblog.accounts.services import (
    UserUnavailable,
    change_profile,
    count_follows,
    follow_user,
    followed_by,
    followers_of,
    is_following,
    sign_up,
    unfollow_user,
    users_by_name,
)
from microblog.api.auth import caller, require_token_unless_post
from microblog.api.blueprint import Blueprint, abort_invalid
from microblog.api.responses import PageResponse, page_request, page_response
from microblog.api.schemas import ProfileChangeSchema, ProfileSchema, SignUpSchema, UserPageSchema, UserSchema
from microblog.api.serializers import find_user, require_self
from microblog.rate_limits import limit_password_attempts, limit_user
from microblog.validators import normalize_email

bp = Blueprint(
    "api_users",
    __name__,
    url_prefix="/api/users",
    tag="users",
    description="Users, their profiles and followers. The username “me” stands for yourself.",
    guard=require_token_unless_post,
)

following_bp = Blueprint("api_following", __name__, url_prefix="/api/users", tag="users")


@bp.get("")
@bp.lists(UserPageSchema)
def index(query: dict[str, Any]) -> PageResponse:
    """List all users, ordered by name."""
    page = users_by_name(page_request(query))
    return page_response(query, page, page.items)


@bp.post("")
@bp.arguments(SignUpSchema)
@bp.response(HTTPStatus.CREATED, ProfileSchema, headers={"Location": "Location"})
@bp.doc(security=[])
@limit_password_attempts()
def create(data: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Create an account.

    Then create a token with its username and password.
    """
    try:
        data["email"] = normalize_email(data["email"])
    except ValueError:
        _refuse(email=_("This is no email address. One looks like susan@example.com."))
    _refuse_taken(data)
    user = sign_up(**data)
    if user is None:
        _refuse_taken(data)
        raise RuntimeError("the database rejected a new account although its username and email address are available")
    return _profile_json(user, user), {"Location": url_for("api_users.show", username=user.username)}


@bp.get("/<username>")
@bp.response(HTTPStatus.OK, ProfileSchema)
@bp.error_responses(HTTPStatus.NOT_FOUND)
def show(username: str) -> dict[str, Any]:
    """Show a user."""
    return _profile_json(find_user(username), caller())


@bp.patch("/<username>")
@bp.arguments(ProfileChangeSchema)
@bp.response(HTTPStatus.OK, ProfileSchema)
@bp.error_responses(HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND)
def change(changes: dict[str, Any], username: str) -> dict[str, Any]:
    """Change your username, profile text, language or time zone."""
    user = require_self(username)
    _refuse_taken(changes, user)
    if not change_profile(user, **changes):
        _refuse_taken(changes, user)
        raise RuntimeError("the database rejected a profile although its username is available")
    return _profile_json(user, user)


def _refuse_taken(data: dict[str, Any], user: User | None = None) -> None:
    """Respond with 422 if a user other than `user` has the requested username or email address."""
    if "username" in data and User.with_username(data["username"], include_deleted=True) not in (None, user):
        _refuse(username=_("This username is taken. Choose another."))
    if "email" in data and User.with_email(data["email"], include_deleted=True) is not None:
        _refuse(email=_("There is an account with this address already. Sign in instead."))


def _refuse(**fields: str) -> None:
    abort_invalid({"json": {name: [message] for name, message in fields.items()}})


def _profile_json(user: User, reader: User) -> dict[str, Any]:
    counts = count_follows(user)
    follows = {
        "followers": counts.followers,
        "following": counts.following,
        "is_followed": is_following(reader, user),
    }
    own = {"email": user.email, "language": user.locale, "timezone": user.timezone}
    profile: dict[str, Any] = UserSchema().dump(user)
    return profile | follows | (own if user.id == reader.id else {})


@following_bp.get("/<username>/followers")
@following_bp.lists(UserPageSchema)
@following_bp.error_responses(HTTPStatus.NOT_FOUND)
def followers(query: dict[str, Any], username: str) -> PageResponse:
    """List the users that follow a user, newest first."""
    page = followers_of(find_user(username), page_request(query))
    return page_response(query, page, (follow.follower for follow in page.items))


@following_bp.get("/<username>/following")
@following_bp.lists(UserPageSchema)
@following_bp.error_responses(HTTPStatus.NOT_FOUND)
def following(query: dict[str, Any], username: str) -> PageResponse:
    """List the users that a user follows, newest first."""
    page = followed_by(find_user(username), page_request(query))
    return page_response(query, page, (follow.followed for follow in page.items))


@following_bp.put("/<username>/following/<followed>")
@following_bp.response(HTTPStatus.NO_CONTENT)
@following_bp.error_responses(HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT)
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


@following_bp.delete("/<username>/following/<followed>")
@following_bp.response(HTTPStatus.NO_CONTENT)
@following_bp.error_responses(HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND)
@limit_user("RATELIMIT_FOLLOW", lambda: caller().id)
def unfollow(username: str, followed: str) -> None:
    """Unfollow a user.

    Has no effect if you do not follow the user. `username` must be your own.
    """
    unfollow_user(require_self(username), find_user(followed))
