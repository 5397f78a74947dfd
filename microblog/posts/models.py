"""The posts."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.engine.default import DefaultExecutionContext
from sqlalchemy.orm import Mapped, mapped_column, relationship

from microblog.accounts.models import User
from microblog.clock import utcnow
from microblog.extensions import db
from microblog.posts import language

if TYPE_CHECKING:
    from microblog.database import Base as Model
else:
    Model = db.Model

MAX_LENGTH = 140  # Unicode code points
LAST_ID = 2**31 - 1  # the greatest that both databases keep
MAX_TAG = 35  # characters of a BCP 47 tag that every program must take


def _language_of_body(context: DefaultExecutionContext) -> str | None:
    """Whoever writes a post need not think of its language: the page, the API, an import, the demo data."""
    return language.detect(context.get_current_parameters()["body"])  # type: ignore[no-untyped-call]


class Post(Model):
    """One post of one user."""

    __tablename__ = "post"
    # Both orders that are read, with the id to break ties: everyone's posts, and one author's.
    __table_args__ = (
        sa.Index("ix_post_timestamp_id", "timestamp", "id"),
        sa.Index("ix_post_user_id_timestamp_id", "user_id", "timestamp", "id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    body: Mapped[str] = mapped_column(sa.String(MAX_LENGTH))
    timestamp: Mapped[datetime] = mapped_column(default=utcnow)
    # BCP 47; null if the text does not tell, and in rows that are older than this column.
    language: Mapped[str | None] = mapped_column(sa.String(MAX_TAG), default=_language_of_body)
    user_id: Mapped[int] = mapped_column(sa.ForeignKey("user.id", ondelete="CASCADE"))

    author: Mapped[User] = relationship(lazy="joined", innerjoin=True)

    def __repr__(self) -> str:
        return f"<Post {self.id} of user {self.user_id}>"
