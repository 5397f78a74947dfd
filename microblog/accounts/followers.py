"""Who follows whom."""

from __future__ import annotations

from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import joinedload

from microblog import paging
from microblog.accounts.models import Follow, User
from microblog.extensions import db
from microblog.notifications import rows
from microblog.notifications.push import push
from microblog.paging import Page

#: The kind of notification that says who follows a user.
FOLLOWER = "follower"


class NobodyThere(Exception):
    """Who was to be followed, or who follows, has just been deleted."""


class Counts(NamedTuple):
    """How many follow a user, and how many that user follows; whose account is being deleted does not count."""

    followers: int
    following: int


def follow(follower: User, followed: User) -> bool:
    """Let `follower` follow `followed`, who is told the first time, and commit that; False if it was so already.

    Raises ValueError if they are the same, and NobodyThere.
    """
    if follower.id == followed.id:
        raise ValueError("nobody follows themselves")
    follower_id, followed_id = follower.id, followed.id
    db.session.add(Follow(follower_id=follower_id, followed_id=followed_id))
    try:
        told = rows.notify(followed_id, FOLLOWER, str(follower_id), actor_id=follower_id, once=True)
        db.session.commit()
    except IntegrityError as error:
        db.session.rollback()
        if db.session.get(Follow, (follower_id, followed_id)) is None:
            raise NobodyThere from error
        return False
    if told is not None:
        push(followed_id, told)
    return True


def unfollow(follower: User, followed: User) -> bool:
    """End that `follower` follows `followed`, and commit that; False if there was nothing to end."""
    ended = db.session.scalars(
        sa.delete(Follow)
        .where(Follow.follower_id == follower.id, Follow.followed_id == followed.id)
        .returning(Follow.followed_id)
    ).all()
    db.session.commit()
    return bool(ended)


def is_following(follower: User, followed: User) -> bool:
    """Whether `follower` follows `followed`."""
    return db.session.get(Follow, (follower.id, followed.id)) is not None


def counts(user: User) -> Counts:
    """How many follow `user`, and how many `user` follows."""
    lists = (_followers_of(user), _followed_by(user))
    numbers = [follows.with_only_columns(sa.func.count()).scalar_subquery() for follows in lists]
    return Counts(*db.session.execute(sa.select(*numbers)).one())


def followers_of(
    user: User, before: str | None = None, after: str | None = None, size: int | None = None
) -> Page[Follow]:
    """A page of who follows `user`, the newest first; `before` and `after` are paging keys. Raises InvalidKey.

    It has at most `size` items, or ``POSTS_PER_PAGE``.
    """
    query = _followers_of(user).options(joinedload(Follow.follower))
    return paging.newest_first(query, Follow.created_at, Follow.follower_id, size, before, after)


def followed_by(
    user: User, before: str | None = None, after: str | None = None, size: int | None = None
) -> Page[Follow]:
    """A page of whom `user` follows, the newest first; `before` and `after` are paging keys. Raises InvalidKey.

    It has at most `size` items, or ``POSTS_PER_PAGE``.
    """
    query = _followed_by(user).options(joinedload(Follow.followed))
    return paging.newest_first(query, Follow.created_at, Follow.followed_id, size, before, after)


def _followers_of(user: User) -> sa.Select[Follow]:
    return sa.select(Follow).where(Follow.followed_id == user.id, Follow.follower_id.not_in(User.ids_of_deleted()))


def _followed_by(user: User) -> sa.Select[Follow]:
    return sa.select(Follow).where(Follow.follower_id == user.id, Follow.followed_id.not_in(User.ids_of_deleted()))
