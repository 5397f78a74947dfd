"""The posts."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import TSVECTOR
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import Mapped, mapped_column, relationship, validates

from microblog.accounts.models import User
from microblog.clock import utcnow
from microblog.extensions import db
from microblog.posts.terms import indexed

if TYPE_CHECKING:
    from microblog.database import Base as Model
else:
    Model = db.Model

MAX_LENGTH = 140  # Unicode code points
_UNINDEXED = sa.text("terms IS NULL")


class Terms(sa.types.TypeDecorator[str]):
    """Terms, of which none has a quote in it, with a space between each two.

    A ``tsvector`` on PostgreSQL, text on SQLite.
    """

    impl = sa.Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> sa.types.TypeEngine[Any]:
        return dialect.type_descriptor(TSVECTOR() if dialect.name == "postgresql" else sa.Text())

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        if value is None or dialect.name != "postgresql":
            return value
        return " ".join(f"'{term}':{position}" for position, term in enumerate(value.split(), 1))

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        if value is None or dialect.name != "postgresql":
            return value
        placed = [
            (int(position), term) for term, positions in _LEXEME.findall(value) for position in positions.split(",")
        ]
        return " ".join(term for _position, term in sorted(placed))


_LEXEME = re.compile(r"'([^']*)':([\d,]+)")


def _terms_of_new_post(context: Any) -> str:  # SQLAlchemy's DefaultExecutionContext
    return indexed(context.get_current_parameters()["body"])


class Post(Model):
    """One post of one user."""

    __tablename__ = "post"
    # Both orders that are read, with the id to break ties: everyone's posts, and one author's.
    __table_args__ = (
        sa.Index("ix_post_timestamp_id", "timestamp", "id"),
        sa.Index("ix_post_user_id_timestamp_id", "user_id", "timestamp", "id"),
        # What the search finds posts by; on SQLite that is post_fts, which triggers keep (search/).
        sa.Index(
            "ix_post_terms", "terms", postgresql_using="gin", postgresql_with={"gin_pending_list_limit": 512}
        ).ddl_if(dialect="postgresql"),
        sa.Index("ix_post_unindexed", "id", sqlite_where=_UNINDEXED, postgresql_where=_UNINDEXED),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    body: Mapped[str] = mapped_column(sa.String(MAX_LENGTH))
    timestamp: Mapped[datetime] = mapped_column(default=utcnow)
    user_id: Mapped[int] = mapped_column(sa.ForeignKey("user.id", ondelete="CASCADE"))

    # The words of the body, for the search alone. Without them (None), a post is found once index_posts came by.
    terms: Mapped[str | None] = mapped_column(Terms, default=_terms_of_new_post, deferred=True)

    author: Mapped[User] = relationship(lazy="joined", innerjoin=True)

    @validates("body")
    def _index(self, _name: str, body: str) -> str:
        self.terms = indexed(body)
        return body

    def __repr__(self) -> str:
        return f"<Post {self.id} of user {self.user_id}>"
