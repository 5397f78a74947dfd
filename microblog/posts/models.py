"""The posts."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column, relationship

from microblog.accounts.models import User
from microblog.clock import utcnow
from microblog.extensions import db

if TYPE_CHECKING:
    from microblog.database import Base as Model
else:
    Model = db.Model

MAX_LENGTH = 140  # Unicode code points
LAST_ID = 2**31 - 1  # the greatest that both databases keep


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
    user_id: Mapped[int] = mapped_column(sa.ForeignKey("user.id", ondelete="CASCADE"))

    author: Mapped[User] = relationship(lazy="joined", innerjoin=True)

    def __repr__(self) -> str:
        return f"<Post {self.id} of user {self.user_id}>"
