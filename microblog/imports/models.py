"""Tables of uploaded files and of the entries that an import rejected."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from flask import current_app
from sqlalchemy.orm import Mapped, mapped_column

from microblog.clock import utcnow
from microblog.extensions import Model
from microblog.storage import Storage, open_storage

MAX_URL_LENGTH = 500  # characters of the original post's URL


class Upload(Model):
    """An uploaded file, stored until `expires_at`. The arguments of its jobs contain its id.

    The row is committed before the file is written, so that the cleanup task finds every file, also those of deleted
    users. The row outlives the file if entries were rejected. `imported` counts the posts stored by all attempts and
    jobs; `report` is set once the file has been read to its end.
    """

    __tablename__ = "upload"

    id: Mapped[str] = mapped_column(sa.String(36), primary_key=True, default=lambda: str(uuid.uuid4()))
    user_id: Mapped[int | None] = mapped_column(sa.ForeignKey("user.id", ondelete="SET NULL"), index=True)
    imported: Mapped[int] = mapped_column(default=0)
    report: Mapped[dict[str, Any] | None] = mapped_column(sa.JSON(none_as_null=True))
    created_at: Mapped[datetime] = mapped_column(default=utcnow)
    expires_at: Mapped[datetime] = mapped_column(index=True)

    @property
    def path(self) -> str:
        """The path of the file, relative to the storage."""
        return f"{self.id}.json"


class RejectedEntry(Model):
    """An entry of an upload that was rejected; deleted together with the upload.

    `place` counts the entries of the file, `number` those of its list (a file may have several), `line` the lines, each
    from 1. `url` is that of the original post.
    """

    __tablename__ = "rejected_entry"

    upload_id: Mapped[str] = mapped_column(sa.ForeignKey("upload.id", ondelete="CASCADE"), primary_key=True)
    place: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int]
    line: Mapped[int]
    reason: Mapped[str] = mapped_column(sa.Text)
    url: Mapped[str | None] = mapped_column("address", sa.String(MAX_URL_LENGTH))


def upload_storage() -> Storage:
    """Return the storage of the setting ``IMPORT_STORAGE_URL``."""
    return open_storage(current_app.config["IMPORT_STORAGE_URL"])
