"""Table of notifications: one row per kind and subject."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from microblog.database import DatabaseTime
from microblog.extensions import Model

MAX_NAME = 64
MAX_SUBJECT = 64
_UNREAD = sa.text("read_at IS NULL")
_HAS_ACTOR = sa.text("actor_id IS NOT NULL")


class Notification(Model):
    """A notification of the kind `name` about a `subject`; a user has one row for each kind and subject.

    `actor_id` is the user who caused it, if any; the row is deleted with that user. `payload` is further data for the
    renderer. `updated_at` is when the event last occurred or was read.
    """

    __tablename__ = "notification"
    __table_args__ = (
        sa.UniqueConstraint("user_id", "name", "subject", name="uq_notification_user_id_name_subject"),
        sa.Index("ix_notification_user_id_timestamp_id", "user_id", "timestamp", "id"),
        sa.Index("ix_notification_user_id_updated_at", "user_id", "updated_at"),
        sa.Index("ix_notification_unread", "user_id", sqlite_where=_UNREAD, postgresql_where=_UNREAD),
        sa.Index("ix_notification_timestamp", "timestamp"),
        sa.Index("ix_notification_actor_id", "actor_id", sqlite_where=_HAS_ACTOR, postgresql_where=_HAS_ACTOR),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(sa.ForeignKey("user.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(sa.String(MAX_NAME))
    subject: Mapped[str] = mapped_column(sa.String(MAX_SUBJECT))
    actor_id: Mapped[int | None] = mapped_column(sa.ForeignKey("user.id", ondelete="CASCADE"))
    payload: Mapped[dict[str, Any]] = mapped_column(default=dict)
    timestamp: Mapped[datetime] = mapped_column(default=DatabaseTime())
    updated_at: Mapped[datetime] = mapped_column(default=DatabaseTime())
    read_at: Mapped[datetime | None]
