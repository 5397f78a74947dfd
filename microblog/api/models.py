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
from microblog.pagination import FIRST_PAGE, Page, PageRequest
from microblog.validators import get_by_id

MAX_TOKEN_NAME = 64  # Unicode code points
LAST_USED_PRECISION = timedelta(minutes=1)  # so that not every read request writes to the database


class AccountChanged(Exception):
    """Raised if the user's password has changed or the account was closed in the meantime."""


class TooManyTokens(Exception):
    """Raised if a user has the maximum number of tokens. The message is a sentence for the user."""


class ApiToken(Model):
    """A token for the API. The token itself is only returned when it is created; the row stores its SHA-256."""

    __tablename__ = "api_token"
    __table_args__ = {"sqlite_autoincrement": True}

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(sa.ForeignKey("user.id", ondelete="CASCADE"), index=True)
    name: Mapped[str] = mapped_column(sa.String(MAX_TOKEN_NAME), default="", server_default="")  # given by the user
    hash: Mapped[str] = mapped_column(sa.String(64), unique=True)
    created_at: Mapped[datetime] = mapped_column(default=utcnow)
    last_used_at: Mapped[datetime | None]
    expires_at: Mapped[datetime]

    user: Mapped[User] = relationship(lazy="joined", innerjoin=True)

    @classmethod
    def issue(cls, user: User, lifetime: timedelta, name: str = "") -> tuple[str, ApiToken]:
        """Create a token for `user` in the caller's transaction, and delete the user's expired ones.

        Return the token and its row. `name` describes its purpose, in at most MAX_TOKEN_NAME characters. Rolls back
        and raises AccountChanged if the password was changed since `user` was read or the account was closed, and
        TooManyTokens if the user has ``API_TOKENS_PER_USER`` valid tokens.
        """
        if not _lock_user(user):
            db.session.rollback()
            raise AccountChanged
        db.session.execute(sa.delete(cls).where(cls.user_id == user.id, cls.expires_at <= utcnow()))
        limit = current_app.config["API_TOKENS_PER_USER"]
        # No other transaction adds a token for this user meanwhile: _lock_user() serializes them.
        if db.session.scalar(sa.select(sa.func.count()).where(cls.user_id == user.id)) >= limit:
            db.session.rollback()
            raise TooManyTokens(
                _("You have as many tokens as one may have (%(most)d). Revoke one that you no longer need.", most=limit)
            )
        token = secrets.token_urlsafe(32)
        row = cls(user=user, name=name, hash=_hash(token), expires_at=utcnow() + lifetime)
        db.session.add(row)
        return token, row

    @classmethod
    def find(cls, token: str) -> ApiToken | None:
        """Return the row of `token`, or None if it has expired or was revoked, or the user's account is closed."""
        live = sa.select(cls).where(cls.hash == _hash(token), cls.expires_at > utcnow())
        return db.session.scalar(live.join(cls.user).where(User.deleted_at.is_(None)))

    @classmethod
    def page_of(cls, user: User, page_request: PageRequest = FIRST_PAGE) -> Page[ApiToken]:
        """Return a page of the valid tokens of `user`. Raises InvalidKey."""
        live = sa.select(cls).where(cls.user_id == user.id, cls.expires_at > utcnow())
        return pagination.newest_first(live, cls.created_at, cls.id, page_request)

    @classmethod
    def revoke(cls, user: User, token_id: int) -> bool:
        """Delete a token of `user` and commit; return False if the user has no token with this id."""
        token = get_by_id(cls, token_id)
        if token is None or token.user_id != user.id:
            return False
        db.session.delete(token)
        db.session.commit()
        return True

    def mark_used(self) -> bool:
        """Set `last_used_at` and commit, unless that was done within LAST_USED_PRECISION.

        Return False, without a change, if the token was revoked since it was read.
        """
        now = utcnow()
        if self.last_used_at is not None and now - self.last_used_at < LAST_USED_PRECISION:
            return True
        update = sa.update(ApiToken).where(ApiToken.id == self.id).values(last_used_at=now).returning(ApiToken.id)
        updated = db.session.scalar(update) is not None
        db.session.commit()
        return updated


def revoke_all(user: User) -> None:
    """Revoke all tokens of `user`, in the caller's transaction."""
    db.session.execute(sa.delete(ApiToken).where(ApiToken.user_id == user.id))


def _lock_user(user: User) -> bool:
    """Lock the row of `user` until the transaction ends; return False if the password changed since it was read.

    Also returns False if the account is closed. The lock is an UPDATE that changes nothing, since SQLite has no
    SELECT FOR UPDATE. A transaction that sets a new password waits for it, and then revokes the new token too.
    """
    same = (User.id == user.id, User.password_hash == user.password_hash, User.deleted_at.is_(None))
    lock = sa.update(User).where(*same).values(password_hash=User.password_hash).returning(User.id)
    return db.session.scalar(lock, execution_options={"synchronize_session": False}) is not None


def _hash(token: str) -> str:
    # A plain hash is sufficient, since a token has 256 random bits. It is looked up by an index.
    return sha256(token.encode()).hexdigest()
