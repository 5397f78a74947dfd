"""Tables of users, followers and changes of email addresses, and the signals of changes."""

from __future__ import annotations

import hmac
import re
from datetime import datetime
from functools import cache
from typing import Any

import sqlalchemy as sa
from blinker import Signal
from flask_login import UserMixin
from sqlalchemy.orm import Mapped, mapped_column, relationship
from werkzeug.security import check_password_hash, generate_password_hash

from microblog import i18n
from microblog.clock import utcnow
from microblog.extensions import Model, db, login
from microblog.security import fingerprint
from microblog.taskqueue.launch import launch_task
from microblog.taskqueue.models import Task
from microblog.validators import comparable_email, is_storable

USERNAME = re.compile(r"[A-Za-z0-9_.-]+\Z")
MAX_USERNAME = 64
MAX_EMAIL = 254
MAX_ABOUT_ME = 280  # Unicode code points
MAX_PASSWORD = 1024  # characters; hashing longer ones would help denial-of-service attacks

#: Sent when a password is changed or an account is closed, so that receivers can revoke access. Receivers get the user;
#: what they write is committed or rolled back with the password.
password_changed = Signal()
#: Sent after the commit that closes an account. Receivers get the user's id.
account_closed = Signal()


class User(UserMixin, Model):
    """A user, who signs in, writes posts and starts jobs."""

    __tablename__ = "user"

    id: Mapped[int] = mapped_column(primary_key=True)
    username: Mapped[str] = mapped_column(sa.String(MAX_USERNAME), unique=True)
    email: Mapped[str] = mapped_column(sa.String(MAX_EMAIL), unique=True)
    password_hash: Mapped[str] = mapped_column(sa.String(256))
    about_me: Mapped[str] = mapped_column(sa.String(MAX_ABOUT_ME), default="", server_default="")
    created_at: Mapped[datetime] = mapped_column(default=utcnow)
    last_seen_at: Mapped[datetime | None]  # to the minute; see last_seen.py
    locale: Mapped[str | None] = mapped_column(sa.String(16))  # None: the browser's language
    timezone: Mapped[str | None] = mapped_column(sa.String(64))  # IANA name; None: the browser's
    is_operator: Mapped[bool] = mapped_column(default=False, server_default=sa.false())  # may control all jobs
    deleted_at: Mapped[datetime | None]  # when requested: the user is hidden, and a task deletes the data

    __table_args__ = (
        sa.Index(
            "ix_user_deleted_at",
            "deleted_at",
            sqlite_where=sa.text("deleted_at IS NOT NULL"),
            postgresql_where=sa.text("deleted_at IS NOT NULL"),
        ),
        {"sqlite_autoincrement": True},
    )

    def __repr__(self) -> str:
        return f"<User {self.username}>"

    def get_id(self) -> str:
        """Return the id that Flask-Login stores in cookies; it becomes invalid when the password changes."""
        return f"{self.id}.{fingerprint('session', str(self.id), self.password_hash)}"

    def set_password(self, password: str) -> None:
        """Store a salted scrypt hash of `password`, not the password itself."""
        self.password_hash = generate_password_hash(password)

    def check_password(self, password: str) -> bool:
        """Return whether `password` is this user's."""
        return check_password_hash(self.password_hash, password)

    @classmethod
    def with_username(cls, username: str, *, include_deleted: bool = False) -> User | None:
        """Return the user named `username`, ignoring case, or None.

        A user whose account is being deleted is found only with `include_deleted`, to check whether a name is free.
        """
        if USERNAME.match(username) is None:
            return None
        return cls._only(sa.func.lower(cls.username) == username.lower(), include_deleted)

    @classmethod
    def with_email(cls, email: str, *, include_deleted: bool = False) -> User | None:
        """Return the user with the address `email`, in any spelling, or None; see with_username()."""
        if not is_storable(email):
            return None
        return cls._only(sa.func.lower(cls.email) == comparable_email(email), include_deleted)

    @classmethod
    def with_id(cls, user_id: int | None) -> User | None:
        """Return the user with this id, or None if there is none or the account is being deleted."""
        user = None if user_id is None else db.session.get(cls, user_id)
        return user if user is not None and user.deleted_at is None else None

    @classmethod
    def ids_of_deleted(cls) -> sa.Select[int]:
        """Return a query for the ids of users whose account is being deleted, to exclude them from lists."""
        return sa.select(cls.id).where(cls.deleted_at.is_not(None))

    @classmethod
    def _only(cls, condition: sa.ColumnElement[bool], include_deleted: bool) -> User | None:
        query = sa.select(cls).where(condition)
        return db.session.scalar(query if include_deleted else query.where(cls.deleted_at.is_(None)))

    @classmethod
    def with_credentials(cls, login: str, password: str) -> User | None:
        """Return the user with the username or email `login` and the `password`; None if either is wrong.

        A wrong name takes as long as a wrong password, so that the response time does not reveal who has an account.
        """
        user = cls.with_email(login) if "@" in login else cls.with_username(login)
        if user is None:
            check_password_hash(_dummy_hash(), password)
            return None
        return user if user.check_password(password) else None

    @classmethod
    def by_name(cls, limit: int, *, only_operators: bool = False) -> list[User]:
        """Return the first `limit` users by name, with `only_operators` only operators."""
        query = sa.select(cls).order_by(sa.func.lower(cls.username)).limit(limit)
        return list(db.session.scalars(query.where(cls.is_operator) if only_operators else query))

    def launch_task(self, name: str, description: str, *args: Any, **kwargs: Any) -> Task:
        """Launch the job that begins with the Celery task `name`, called with this user's id, `args` and `kwargs`.

        Return the row of the first task, in the caller's transaction: nothing is published before the commit.
        Raises taskqueue.errors.AlreadyRunning if the user has an unfinished job of that kind, and LookupError
        if there is no such task.
        """
        return launch_task(name, description, self.id, *args, user_id=self.id, **kwargs)

    def get_tasks_in_progress(self) -> list[Task]:
        """Return this user's unfinished tasks, oldest first."""
        return list(db.session.scalars(self._unfinished_tasks()))

    def get_task_in_progress(self, name: str) -> Task | None:
        """Return this user's unfinished task called `name`, or None."""
        return db.session.scalar(self._unfinished_tasks().where(Task.name == name))

    def _unfinished_tasks(self) -> sa.Select[Task]:
        return sa.select(Task).where(Task.user_id == self.id, Task.unfinished).order_by(Task.created_at, Task.position)


class Follow(Model):
    """A user who follows another: their home page includes the posts of the followed user."""

    __tablename__ = "follow"
    # Indexes for the list of a user's followers and that of the users they follow, newest first.
    __table_args__ = (
        sa.CheckConstraint("follower_id <> followed_id", name="not_self"),
        sa.Index("ix_follow_followed_id_created_at_follower_id", "followed_id", "created_at", "follower_id"),
        sa.Index("ix_follow_follower_id_created_at_followed_id", "follower_id", "created_at", "followed_id"),
    )

    follower_id: Mapped[int] = mapped_column(sa.ForeignKey("user.id", ondelete="CASCADE"), primary_key=True)
    followed_id: Mapped[int] = mapped_column(sa.ForeignKey("user.id", ondelete="CASCADE"), primary_key=True)
    created_at: Mapped[datetime] = mapped_column(default=utcnow)

    follower: Mapped[User] = relationship(foreign_keys=follower_id)
    followed: Mapped[User] = relationship(foreign_keys=followed_id)


class EmailChange(Model):
    """A requested change of a user's email address. The Celery messages of its mails carry its id."""

    __tablename__ = "email_change"
    __table_args__ = {"sqlite_autoincrement": True}

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(sa.ForeignKey("user.id", ondelete="CASCADE"), index=True)
    old_address: Mapped[str] = mapped_column(sa.String(MAX_EMAIL))
    new_address: Mapped[str] = mapped_column(sa.String(MAX_EMAIL))
    requested_at: Mapped[datetime] = mapped_column(default=utcnow, index=True)
    confirmed_at: Mapped[datetime | None]

    user: Mapped[User] = relationship(lazy="joined", innerjoin=True)


# Usernames and addresses are unique regardless of case.
sa.Index("uq_user_username_lower", sa.func.lower(User.username), unique=True)
sa.Index("uq_user_email_lower", sa.func.lower(User.email), unique=True)


@cache
def _dummy_hash() -> str:
    return generate_password_hash("")


def id_in_session(session_id: str) -> int | None:
    """Return the user id in a session id that User.get_id() returned, without verifying it and without a query."""
    user_id = session_id.partition(".")[0]
    return int(user_id) if user_id.isdecimal() else None


@login.user_loader
def load_user(session_id: str) -> User | None:
    """Return the user of a session id that User.get_id() returned, unless the password has changed since."""
    user = User.with_id(id_in_session(session_id))
    if user is None or not hmac.compare_digest(user.get_id().encode(), session_id.encode()):
        return None
    i18n.use_locale_of(user)
    return user
