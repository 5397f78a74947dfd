"""The files that were uploaded to be imported."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from microblog.clock import utcnow
from microblog.extensions import db

if TYPE_CHECKING:
    from microblog.database import Base as Model
else:
    Model = db.Model


class Upload(Model):
    """A file in the storage, until `expires_at`; its jobs know it by its id.

    There is a row before there is a file, so that whatever happens the sweep finds what was left: also that of a user
    who is gone. `imported` counts the posts that came in by it, however many attempts and jobs it took; `report` is
    what became of the others, once the file has been read to its end.
    """

    __tablename__ = "upload"

    id: Mapped[str] = mapped_column(sa.String(36), primary_key=True, default=lambda: str(uuid.uuid4()))
    user_id: Mapped[int | None] = mapped_column(sa.ForeignKey("user.id", ondelete="SET NULL"), index=True)
    imported: Mapped[int] = mapped_column(default=0)
    report: Mapped[dict[str, Any] | None] = mapped_column(sa.JSON(none_as_null=True))
    created_at: Mapped[datetime] = mapped_column(default=utcnow)
    expires_at: Mapped[datetime] = mapped_column(index=True)

    def __repr__(self) -> str:
        return f"<Upload {self.id} of user {self.user_id}>"

    @property
    def path(self) -> str:
        """Where the file is, relative to the storage."""
        return f"{self.id}.json"
