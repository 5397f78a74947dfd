"""Operations on accounts: sign up, change the profile or the password, reset it, list users by name, follow."""

from __future__ import annotations

from typing import NamedTuple

import sqlalchemy as sa
from flask import abort
from flask_babel import gettext as _
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import joinedload
from werkzeug.security import generate_password_hash

from microblog import pagination
from microblog.accounts.models import MAX_USERNAME, USERNAME, Follow, User, password_changed
from microblog.extensions import db
from microblog.notifications.pubsub import end_streams
from microblog.notifications.push import push
from microblog.notifications.services import notify
from microblog.pagination import FIRST_PAGE, InvalidKey, KeysetOrder, Page, PageRequest
from microblog.taskqueue.launch import launch_task
from microblog.taskqueue.models import Task

#: The task that mails a link to set a new password.
RESET_EMAIL_TASK = "email_password_reset"

#: The kind of notification about a new follower.
FOLLOWER = "follower"


def sign_up(username: str, email: str, password: str) -> User | None:
    """Create an account and commit. Return None if the name or the address was taken in the meantime."""
    user = User(username=username, email=email)
    user.set_password(password)
    db.session.add(user)
    return user if _commit_unless_taken() else None


def change_profile(user: User, **changes: str | None) -> bool:
    """Change the profile of `user` and commit. Return False if the username was taken in the meantime.

    `changes` has the new values by column: username, about_me, locale, timezone.
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
    """Set a new password and commit; sessions, links and tokens that depend on the old one become invalid.

    Return False and change nothing if the password was changed since `user` was read, or the account is closed.
    """
    old_hash, new_hash = user.password_hash, generate_password_hash(password)
    replaced = db.session.scalar(
        sa.update(User)
        .where(User.id == user.id, User.password_hash == old_hash, User.deleted_at.is_(None))
        .values(password_hash=new_hash)
        .returning(User.id)
    )
    if replaced is None:
        db.session.rollback()
        return False
    password_changed.send(user)
    db.session.commit()
    end_streams(replaced)
    return True


def request_password_reset(email: str) -> None:
    """Launch the mail with a link to `email`, which is sent if it belongs to a user, and commit.

    The job belongs to the system: anyone may request a link, but must not be able to fill a user's list of jobs.
    """
    user = User.with_email(email)
    launch_task(RESET_EMAIL_TASK, _("Mailing a link to set a new password"), user.id if user else None)
    db.session.commit()


def is_reset_pending(user_id: int, task_id: str) -> bool:
    """Return whether an earlier task than `task_id` will mail a link to the same user, so that this one need not.

    The system may have several unfinished jobs of a kind, so this is checked by the task; the oldest sends the mail.
    """
    task = db.session.get(Task, task_id)
    if task is None:
        return False
    earlier = sa.tuple_(Task.created_at, Task.id) < (task.created_at, task.id)
    same_user = Task.signature[("args", 0)].as_integer() == user_id
    query = sa.select(Task.id).where(Task.unfinished, Task.name == RESET_EMAIL_TASK, earlier, same_user)
    return db.session.scalar(query.limit(1)) is not None


def get_user_or_404(username: str) -> User:
    """Return the user of that name. Raises werkzeug's NotFound."""
    return User.with_username(username) or abort(404, _("There is nobody of this name."))


def users_by_name(page_request: PageRequest = FIRST_PAGE) -> Page[User]:
    """Return a page of users in alphabetical order; the key of a user is the name. Raises InvalidKey."""
    query = sa.select(User).where(User.deleted_at.is_(None))
    return pagination.page_of_rows(query, [sa.func.lower(User.username)], _BY_NAME, page_request)


def _parse_name(text: str) -> sa.Tuple:
    if USERNAME.match(text) is None or len(text) > MAX_USERNAME:
        raise InvalidKey
    return sa.tuple_(sa.literal(text.lower()))


_BY_NAME: KeysetOrder[User] = KeysetOrder(lambda user: user.username, _parse_name, ascending=True)


class UserUnavailable(Exception):
    """Raised if the user to follow, or the follower, has just been deleted."""


class FollowCounts(NamedTuple):
    """Numbers of followers and of followed users, without those whose account is being deleted."""

    followers: int
    following: int


def follow_user(follower: User, followed: User) -> bool:
    """Let `follower` follow `followed` and commit. Return False if they already did.

    The followed user is notified the first time. Raises ValueError if both are the same user, and UserUnavailable.
    """
    if follower.id == followed.id:
        raise ValueError("users cannot follow themselves")
    follower_id, followed_id = follower.id, followed.id
    db.session.add(Follow(follower_id=follower_id, followed_id=followed_id))
    try:
        notification = notify(followed_id, FOLLOWER, str(follower_id), actor_id=follower_id, once=True)
        db.session.commit()
    except IntegrityError as error:
        db.session.rollback()
        if db.session.get(Follow, (follower_id, followed_id)) is None:
            raise UserUnavailable from error
        return False
    if notification is not None:
        push(followed_id, notification)
    return True


def unfollow_user(follower: User, followed: User) -> bool:
    """Let `follower` no longer follow `followed` and commit. Return False if they did not follow."""
    deleted = db.session.scalars(
        sa.delete(Follow)
        .where(Follow.follower_id == follower.id, Follow.followed_id == followed.id)
        .returning(Follow.followed_id)
    ).all()
    db.session.commit()
    return bool(deleted)


def is_following(follower: User, followed: User) -> bool:
    """Return whether `follower` follows `followed`."""
    return db.session.get(Follow, (follower.id, followed.id)) is not None


def count_follows(user: User) -> FollowCounts:
    """Return how many users follow `user`, and how many `user` follows."""
    lists = (_followers_of(user), _followed_by(user))
    numbers = [follows.with_only_columns(sa.func.count()).scalar_subquery() for follows in lists]
    return FollowCounts(*db.session.execute(sa.select(*numbers)).one())


def followers_of(user: User, page_request: PageRequest = FIRST_PAGE) -> Page[Follow]:
    """Return a page of the followers of `user`, newest first. Raises InvalidKey."""
    query = _followers_of(user).options(joinedload(Follow.follower))
    return pagination.newest_first(query, Follow.created_at, Follow.follower_id, page_request)


def followed_by(user: User, page_request: PageRequest = FIRST_PAGE) -> Page[Follow]:
    """Return a page of the users whom `user` follows, newest first. Raises InvalidKey."""
    query = _followed_by(user).options(joinedload(Follow.followed))
    return pagination.newest_first(query, Follow.created_at, Follow.followed_id, page_request)


def _followers_of(user: User) -> sa.Select[Follow]:
    return sa.select(Follow).where(Follow.followed_id == user.id, Follow.follower_id.not_in(User.ids_of_deleted()))


def _followed_by(user: User) -> sa.Select[Follow]:
    return sa.select(Follow).where(Follow.follower_id == user.id, Follow.followed_id.not_in(User.ids_of_deleted()))
