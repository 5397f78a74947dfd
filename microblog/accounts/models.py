"""Tables of users and of who follows whom."""

from __future__ import annotations

import hmac
import re
from datetime import datetime
from functools import cache
from typing import Any

import sqlalchemy as sa
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
MAX_PASSWORD = 1024  # characters; hashing more would only serve somebody who wants to keep us busy


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
    locale: Mapped[str | None] = mapped_column(sa.String(16))  # None: as the browser asks
    timezone: Mapped[str | None] = mapped_column(sa.String(64))  # as the IANA names it; None: the browser's
    is_operator: Mapped[bool] = mapped_column(default=False, server_default=sa.false())  # sees and steers all jobs
    deleted_at: Mapped[datetime | None]  # when they asked for it: nobody sees them any more, a task does the rest

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
        """Return the id that Flask-Login keeps in cookies; it becomes invalid with a new password."""
        return f"{self.id}.{fingerprint('session', str(self.id), self.password_hash)}"

    def set_password(self, password: str) -> None:
        """Keep a salted scrypt hash of `password`; the password itself is not kept."""
        self.password_hash = generate_password_hash(password)

    def check_password(self, password: str) -> bool:
        """Return whether `password` is this user's."""
        return check_password_hash(self.password_hash, password)

    @classmethod
    def with_username(cls, username: str, *, also_deleted: bool = False) -> User | None:
        """The user called `username`, in whatever case, or None.

        Whose account is being deleted is nobody, but to those who ask whether the name is free (`also_deleted`).
        """
        if USERNAME.match(username) is None:
            return None
        return cls._only(sa.func.lower(cls.username) == username.lower(), also_deleted)

    @classmethod
    def with_email(cls, email: str, *, also_deleted: bool = False) -> User | None:
        """The user who has the address `email`, however it is typed, or None; `also_deleted` as for a name."""
        if not is_storable(email):
            return None
        return cls._only(sa.func.lower(cls.email) == comparable_email(email), also_deleted)

    @classmethod
    def with_id(cls, user_id: int | None) -> User | None:
        """The user with this id, or None; whose account is being deleted is nobody."""
        user = None if user_id is None else db.session.get(cls, user_id)
        return user if user is not None and user.deleted_at is None else None

    @classmethod
    def ids_of_deleted(cls) -> sa.Select[int]:
        """The ids of those whose account is being deleted, for lists to leave them out."""
        return sa.select(cls.id).where(cls.deleted_at.is_not(None))

    @classmethod
    def _only(cls, condition: sa.ColumnElement[bool], also_deleted: bool) -> User | None:
        query = sa.select(cls).where(condition)
        return db.session.scalar(query if also_deleted else query.where(cls.deleted_at.is_(None)))

    @classmethod
    def with_credentials(cls, login: str, password: str) -> User | None:
        """The user who signs in as `login` (username or email) with `password`; None if either is wrong.

        A wrong name takes as long as a wrong password, so that the answer does not tell who has an account.
        """
        user = cls.with_email(login) if "@" in login else cls.with_username(login)
        if user is None:
            check_password_hash(_hash_of_nobody(), password)
            return None
        return user if user.check_password(password) else None

    @classmethod
    def by_name(cls, limit: int, *, only_operators: bool = False) -> list[User]:
        """The first `limit` users by name; `only_operators` leaves out all others."""
        query = sa.select(cls).order_by(sa.func.lower(cls.username)).limit(limit)
        return list(db.session.scalars(query.where(cls.is_operator) if only_operators else query))

    def launch_task(self, name: str, description: str, *args: Any, **kwargs: Any) -> Task:
        """Start the job that begins with the Celery task `name`, with this user's id, `args` and `kwargs`.

        Returns the first step's row, in the caller's transaction: nothing is published before it commits.
        Raises taskqueue.interface.AlreadyRunning if the user has an unfinished job of that kind, and LookupError
        if there is no such task.
        """
        return launch_task(name, description, self.id, *args, user_id=self.id, **kwargs)

    def get_tasks_in_progress(self) -> list[Task]:
        """This user's unfinished tasks, oldest first."""
        return list(db.session.scalars(self._unfinished_tasks()))

    def get_task_in_progress(self, name: str) -> Task | None:
        """This user's unfinished task called `name`, or None."""
        return db.session.scalar(self._unfinished_tasks().where(Task.name == name))

    def _unfinished_tasks(self) -> sa.Select[Task]:
        return sa.select(Task).where(Task.user_id == self.id, Task.unfinished).order_by(Task.created_at, Task.position)


class Follow(Model):
    """That one user reads what another writes."""

    __tablename__ = "follow"
    # A user's followers and those whom a user follows, each list the newest first.
    __table_args__ = (
        sa.CheckConstraint("follower_id <> followed_id", name="somebody_else"),
        sa.Index("ix_follow_followed_id_created_at_follower_id", "followed_id", "created_at", "follower_id"),
        sa.Index("ix_follow_follower_id_created_at_followed_id", "follower_id", "created_at", "followed_id"),
    )

    follower_id: Mapped[int] = mapped_column(sa.ForeignKey("user.id", ondelete="CASCADE"), primary_key=True)
    followed_id: Mapped[int] = mapped_column(sa.ForeignKey("user.id", ondelete="CASCADE"), primary_key=True)
    created_at: Mapped[datetime] = mapped_column(default=utcnow)

    follower: Mapped[User] = relationship(foreign_keys=follower_id)
    followed: Mapped[User] = relationship(foreign_keys=followed_id)

    def __repr__(self) -> str:
        return f"<Follow {self.follower_id} of {self.followed_id}>"


# A name is the same name in whatever case it is typed.
sa.Index("uq_user_username_lower", sa.func.lower(User.username), unique=True)
sa.Index("uq_user_email_lower", sa.func.lower(User.email), unique=True)


@cache
def _hash_of_nobody() -> str:
    return generate_password_hash("")


def id_in_session(session_id: str) -> int | None:
    """The id of the user of whom User.get_id() told a cookie; that proves nothing, and asks the database nothing."""
    user_id = session_id.partition(".")[0]
    return int(user_id) if user_id.isdecimal() else None


@login.user_loader
def load_user(session_id: str) -> User | None:
    """The user that a cookie names by User.get_id(), unless the password has changed since."""
    user = User.with_id(id_in_session(session_id))
    if user is None or not hmac.compare_digest(user.get_id().encode(), session_id.encode()):
        return None
    i18n.use_locale_of(user)
    return user
