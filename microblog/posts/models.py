"""Tables of posts and their translations, and the columns of a post that are computed from its body."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import TSVECTOR
from sqlalchemy.engine import Dialect
from sqlalchemy.engine.default import DefaultExecutionContext
from sqlalchemy.orm import Mapped, mapped_column, relationship, validates

from microblog.accounts.models import User
from microblog.database import DatabaseTime
from microblog.extensions import Model
from microblog.posts import language_detection
from microblog.posts.tokenizer import indexed

MAX_POST = 140  # Unicode code points
MAX_TAG = 35  # characters of a BCP 47 tag that every implementation must support
MAX_TRANSLATION = 2000  # Unicode code points; a longer text is not accepted
_LEXEME = re.compile(r"'([^']*)':([\d,]+)")
_UNINDEXED = sa.text("terms IS NULL")


class Terms(sa.types.TypeDecorator[str]):
    """Terms separated by spaces, none of which contains a quote.

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
        positioned = [
            (int(position), term) for term, positions in _LEXEME.findall(value) for position in positions.split(",")
        ]
        return " ".join(term for _position, term in sorted(positioned))


def language_of_body(context: DefaultExecutionContext) -> str | None:
    """Return the default of the language: the one detected in the body."""
    return language_detection.detect_language(context.get_current_parameters()["body"])  # type: ignore[no-untyped-call]


def terms_of_body(context: DefaultExecutionContext) -> str:
    """Return the default of the terms: those of the body."""
    return indexed(context.get_current_parameters()["body"])  # type: ignore[no-untyped-call]


class Post(Model):
    """A post of a user."""

    __tablename__ = "post"
    # Indexes for the posts of all users and for those of one author; the id breaks ties.
    __table_args__ = (
        sa.Index("ix_post_timestamp_id", "timestamp", "id"),
        sa.Index("ix_post_user_id_timestamp_id", "user_id", "timestamp", "id"),
        # The full-text index; on SQLite it is the table post_fts, which triggers update (search/).
        sa.Index(
            "ix_post_terms", "terms", postgresql_using="gin", postgresql_with={"gin_pending_list_limit": 512}
        ).ddl_if(dialect="postgresql"),
        sa.Index("ix_post_unindexed", "id", sqlite_where=_UNINDEXED, postgresql_where=_UNINDEXED),
        # The order in which the search reads posts; in post_fts it is the order of the rowids.
        sa.Index("ix_post_imported_id", "imported", sa.text("id DESC"), postgresql_using="btree").ddl_if(
            dialect="postgresql"
        ),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    body: Mapped[str] = mapped_column(sa.String(MAX_POST))
    timestamp: Mapped[datetime] = mapped_column(default=DatabaseTime())
    # BCP 47; NULL if it was not detected, and in rows that are older than this column.
    language: Mapped[str | None] = mapped_column(sa.String(MAX_TAG), default=language_of_body)
    user_id: Mapped[int] = mapped_column(sa.ForeignKey("user.id", ondelete="CASCADE"))
    # True for a post imported from a file. The search reads posts written here first, however many were imported.
    imported: Mapped[bool] = mapped_column(default=False, server_default=sa.false(), deferred=True)

    # The terms of the body, used only by the search. A post without terms (None) is found after the next index_posts.
    terms: Mapped[str | None] = mapped_column(Terms, default=terms_of_body, deferred=True)

    author: Mapped[User] = relationship(lazy="joined", innerjoin=True)

    @validates("body")
    def _index(self, _name: str, body: str) -> str:
        self.terms = indexed(body)
        return body


class Translation(Model):
    """A translation of a post."""

    __tablename__ = "translation"

    post_id: Mapped[int] = mapped_column(sa.ForeignKey("post.id", ondelete="CASCADE"), primary_key=True)
    language: Mapped[str] = mapped_column(sa.String(MAX_TAG), primary_key=True)  # BCP 47
    body: Mapped[str] = mapped_column(sa.String(MAX_TRANSLATION))
