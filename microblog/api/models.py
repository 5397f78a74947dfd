"""Table of API tokens."""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta
from hashlib import sha256

import sqlalchemy as sa
from flask import current_app
from flask_babel import gettext as _
from sqlalchemy.orm import Mapped, mapped_column, relationship

from microblog import pagination
from microblog.accounts.models import User
from microblog.clock import utcnow
from microblog.extensions import Model, db
from microblog.pagination import Page
from microblog.validators import get_by_id

MAX_TOKEN_NAME = 64  # Unicode code points
USE_NOTED_EVERY = timedelta(minutes=1)  # so that reading through the API does not write each time


class AccountChanged(Exception):
    """The user has another password by now, or has closed the account."""


class TooManyTokens(Exception):
    """The user has as many tokens as one may have. The message is a sentence that says so."""


class ApiToken(Model):
    """A key to the API. The token itself is told once, to whoever asked for it; only its SHA-256 is kept."""

    __tablename__ = "api_token"
    __table_args__ = {"sqlite_autoincrement": True}

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(sa.ForeignKey("user.id", ondelete="CASCADE"), index=True)
    name: Mapped[str] = mapped_column(sa.String(MAX_TOKEN_NAME), default="", server_default="")  # what it is for
    hash: Mapped[str] = mapped_column(sa.String(64), unique=True)
    created_at: Mapped[datetime] = mapped_column(default=utcnow)
    last_used_at: Mapped[datetime | None]
    expires_at: Mapped[datetime]

    user: Mapped[User] = relationship(lazy="joined", innerjoin=True)

    def __repr__(self) -> str:
        return f"<ApiToken {self.id} of user {self.user_id}>"

    @classmethod
    def issue(cls, user: User, lifetime: timedelta, name: str = "") -> tuple[str, ApiToken]:
        """A new token for `user`, and its row in the caller's transaction; the user's expired ones go.

        `name` is what it is for, in at most MAX_TOKEN_NAME characters. Raises, with the transaction rolled back,
        AccountChanged if the password was changed since `user` was read, or the account closed, and TooManyTokens if
        ``API_TOKENS_PER_USER`` of theirs work.
        """
        if not _hold(user):
            db.session.rollback()
            raise AccountChanged
        db.session.execute(sa.delete(cls).where(cls.user_id == user.id, cls.expires_at <= utcnow()))
        most = current_app.config["API_TOKENS_PER_USER"]
        # Nobody else makes one for this user meanwhile: _hold() lets one do so at a time.
        if db.session.scalar(sa.select(sa.func.count()).where(cls.user_id == user.id)) >= most:
            db.session.rollback()
            raise TooManyTokens(
                _("You have as many tokens as one may have (%(most)d). Revoke one that you no longer need.", most=most)
            )
        token = secrets.token_urlsafe(32)
        row = cls(user=user, name=name, hash=_hash(token), expires_at=utcnow() + lifetime)
        db.session.add(row)
        return token, row

    @classmethod
    def find(cls, token: str) -> ApiToken | None:
        """The row of `token`, if it has neither expired nor been revoked, and its user's account is not closed."""
        live = sa.select(cls).where(cls.hash == _hash(token), cls.expires_at > utcnow())
        return db.session.scalar(live.join(cls.user).where(User.deleted_at.is_(None)))

    @classmethod
    def page_of(
        cls, user: User, size: int | None = None, before: str | None = None, after: str | None = None
    ) -> Page[ApiToken]:
        """A page of the tokens of `user` that work; `before` and `after` are paging keys. Raises InvalidKey."""
        live = sa.select(cls).where(cls.user_id == user.id, cls.expires_at > utcnow())
        return pagination.newest_first(live, cls.created_at, cls.id, size, before, after)

    @classmethod
    def revoke(cls, user: User, token_id: int) -> bool:
        """Delete a token of `user`, and commit that; False if they have none of that number."""
        token = get_by_id(cls, token_id)
        if token is None or token.user_id != user.id:
            return False
        db.session.delete(token)
        db.session.commit()
        return True

    def note_use(self) -> bool:
        """Remember that the token is in use, and commit that, unless it was noted a moment ago.

        False, and nothing done, if it turns out that the token was revoked since it was found.
        """
        now = utcnow()
        if self.last_used_at is not None and now - self.last_used_at < USE_NOTED_EVERY:
            return True
        used = sa.update(ApiToken).where(ApiToken.id == self.id).values(last_used_at=now).returning(ApiToken.id)
        noted = db.session.scalar(used) is not None
        db.session.commit()
        return noted


def revoke_all(user: User) -> None:
    """Revoke all tokens of `user`, in the caller's transaction."""
    db.session.execute(sa.delete(ApiToken).where(ApiToken.user_id == user.id))


def _hold(user: User) -> bool:
    """Lock the row of `user` until the transaction ends, if its password is the one that was read.

    An UPDATE that changes nothing, since SQLite knows no SELECT FOR UPDATE: who sets a new password waits for it, and
    then revokes the new token too.
    """
    same = (User.id == user.id, User.password_hash == user.password_hash, User.deleted_at.is_(None))
    held = sa.update(User).where(*same).values(password_hash=User.password_hash).returning(User.id)
    return db.session.scalar(held, execution_options={"synchronize_session": False}) is not None


def _hash(token: str) -> str:
    # A plain hash will do: nobody guesses 256 random bits, and it is looked up by its index.
    return sha256(token.encode()).hexdigest()
