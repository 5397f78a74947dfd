"""The archives that exports made."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from microblog.clock import utcnow
from microblog.extensions import db

if TYPE_CHECKING:
    from microblog.database import Base as Model
else:
    Model = db.Model


class Archive(Model):
    """A whole archive in the storage; there is no row for one that is still being written.

    Its id is that of the job which made it. `path` is relative to the storage, `size` in bytes, `sha256` in hex.
    """

    __tablename__ = "archive"

    id: Mapped[str] = mapped_column(sa.String(36), primary_key=True)
    user_id: Mapped[int] = mapped_column(sa.ForeignKey("user.id", ondelete="CASCADE"), index=True)
    path: Mapped[str] = mapped_column(sa.String(255))
    posts: Mapped[int]
    size: Mapped[int] = mapped_column(sa.BigInteger)
    sha256: Mapped[str] = mapped_column(sa.String(64))
    created_at: Mapped[datetime] = mapped_column(default=utcnow)
    expires_at: Mapped[datetime] = mapped_column(index=True)

    def __repr__(self) -> str:
        return f"<Archive {self.id} of user {self.user_id}>"
