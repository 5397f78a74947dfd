"""Operations on accounts: sign up, change the profile or the password, find users by name, follow."""

from __future__ import annotations

from typing import NamedTuple

import sqlalchemy as sa
from flask import abort
from flask_babel import gettext as _
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import joinedload
from werkzeug.security import generate_password_hash

from microblog import pagination
from microblog.accounts.models import MAX_USERNAME, USERNAME, Follow, User
from microblog.accounts.signals import password_changed
from microblog.extensions import db
from microblog.notifications.pubsub import end_streams
from microblog.notifications.push import push
from microblog.notifications.services import notify
from microblog.pagination import InvalidKey, Page


def sign_up(username: str, email: str, password: str) -> User | None:
    """Make an account, and commit that; None if another took the name or the address in this very moment."""
    user = User(username=username, email=email)
    user.set_password(password)
    db.session.add(user)
    return user if _commit_unless_taken() else None


def change_profile(user: User, **changes: str | None) -> bool:
    """Keep what `user` changes of their profile; False if another took the name in this very moment.

    `changes` are by column: username, about_me, locale, timezone.
    """
    for column, value in changes.items():
        setattr(user, column, value)
    return _commit_unless_taken()


def _commit_unless_taken() -> bool:
    try:
        db.session.commit()
    except IntegrityError:
        db.session.rollback()
        return False
    return True


def replace_password(user: User, password: str) -> bool:
    """Give `user` a new password, and commit that: sessions, links and tokens of the old one end.

    False, and nothing done, if it was changed by somebody else since `user` was read, or the account is closed.
    """
    known, replacement = user.password_hash, generate_password_hash(password)
    replaced = db.session.scalar(
        sa.update(User)
        .where(User.id == user.id, User.password_hash == known, User.deleted_at.is_(None))
        .values(password_hash=replacement)
        .returning(User.id)
    )
    if replaced is None:
        db.session.rollback()
        return False
    password_changed.send(user)
    db.session.commit()
    end_streams(replaced)
    return True


def get_user_or_404(username: str) -> User:
    """The user of that name. Raises werkzeug's NotFound."""
    return User.with_username(username) or abort(404, _("There is nobody of this name."))


class UserPage(NamedTuple):
    """A page of users, A before Z; behind which name the next page begins, and before which the one before ends."""

    users: list[User]
    next: str | None
    prev: str | None


def users_by_name(size: int, before: str | None = None, after: str | None = None) -> UserPage:
    """The page of at most `size` users that begins `after` a name or ends `before` one; without either, the first.

    Raises InvalidKey for both, and for what is no name.
    """
    if before is not None and after is not None:
        raise InvalidKey
    if before is not None:
        users = _users_from(before, size, upward=True)[::-1]
        if len(users) > size:
            return UserPage(users[1:], users[-1].username, users[1].username)
    # Near the beginning the first page is shown whole, not one of two or three.
    users = _users_from(after, size, upward=False)
    following = users[size - 1].username if len(users) > size else None
    page = users[:size]
    if after is None:
        return UserPage(page, following, None)
    return UserPage(page, following, page[0].username if page else after)


def _users_from(edge: str | None, size: int, *, upward: bool) -> list[User]:
    """One page and one user more, behind the name `edge`; towards A if `upward`."""
    name = sa.func.lower(User.username)
    query = sa.select(User).where(User.deleted_at.is_(None)).order_by(name.desc() if upward else name).limit(size + 1)
    if edge is not None:
        if USERNAME.match(edge) is None or len(edge) > MAX_USERNAME:
            raise InvalidKey
        query = query.where(name < edge.lower() if upward else name > edge.lower())
    return list(db.session.scalars(query))


#: The kind of notification that says who follows a user.
FOLLOWER = "follower"


class UserUnavailable(Exception):
    """The user to follow, or the follower, has just been deleted."""


class FollowCounts(NamedTuple):
    """Numbers of followers and of followed users, without those whose account is being deleted."""

    followers: int
    following: int


def follow_user(follower: User, followed: User) -> bool:
    """Let `follower` follow `followed`, who is told the first time, and commit that; False if it was so already.

    Raises ValueError if they are the same, and UserUnavailable.
    """
    if follower.id == followed.id:
        raise ValueError("nobody follows themselves")
    follower_id, followed_id = follower.id, followed.id
    db.session.add(Follow(follower_id=follower_id, followed_id=followed_id))
    try:
        told = notify(followed_id, FOLLOWER, str(follower_id), actor_id=follower_id, once=True)
        db.session.commit()
    except IntegrityError as error:
        db.session.rollback()
        if db.session.get(Follow, (follower_id, followed_id)) is None:
            raise UserUnavailable from error
        return False
    if told is not None:
        push(followed_id, told)
    return True


def unfollow_user(follower: User, followed: User) -> bool:
    """End that `follower` follows `followed`, and commit that; False if there was nothing to end."""
    ended = db.session.scalars(
        sa.delete(Follow)
        .where(Follow.follower_id == follower.id, Follow.followed_id == followed.id)
        .returning(Follow.followed_id)
    ).all()
    db.session.commit()
    return bool(ended)


def is_following(follower: User, followed: User) -> bool:
    """Return whether `follower` follows `followed`."""
    return db.session.get(Follow, (follower.id, followed.id)) is not None


def count_follows(user: User) -> FollowCounts:
    """Return how many users follow `user`, and how many `user` follows."""
    lists = (_followers_of(user), _followed_by(user))
    numbers = [follows.with_only_columns(sa.func.count()).scalar_subquery() for follows in lists]
    return FollowCounts(*db.session.execute(sa.select(*numbers)).one())


def followers_of(
    user: User, before: str | None = None, after: str | None = None, size: int | None = None
) -> Page[Follow]:
    """A page of who follows `user`, the newest first; `before` and `after` are paging keys. Raises InvalidKey.

    It has at most `size` items, or ``POSTS_PER_PAGE``.
    """
    query = _followers_of(user).options(joinedload(Follow.follower))
    return pagination.newest_first(query, Follow.created_at, Follow.follower_id, size, before, after)


def followed_by(
    user: User, before: str | None = None, after: str | None = None, size: int | None = None
) -> Page[Follow]:
    """A page of whom `user` follows, the newest first; `before` and `after` are paging keys. Raises InvalidKey.

    It has at most `size` items, or ``POSTS_PER_PAGE``.
    """
    query = _followed_by(user).options(joinedload(Follow.followed))
    return pagination.newest_first(query, Follow.created_at, Follow.followed_id, size, before, after)


def _followers_of(user: User) -> sa.Select[Follow]:
    return sa.select(Follow).where(Follow.followed_id == user.id, Follow.follower_id.not_in(User.ids_of_deleted()))


def _followed_by(user: User) -> sa.Select[Follow]:
    return sa.select(Follow).where(Follow.follower_id == user.id, Follow.followed_id.not_in(User.ids_of_deleted()))
