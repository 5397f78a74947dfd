"""Table of private messages."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column, relationship

from microblog.accounts.models import User
from microblog.database import DatabaseTime
from microblog.extensions import Model

MAX_MESSAGE = 1000  # Unicode code points
_UNREAD = sa.text("read_at IS NULL")


class Message(Model):
    """A private message.

    Each participant deletes it only for themselves; the row is deleted once both have. For the recipient, deleting a
    message also marks it as read.
    """

    __tablename__ = "message"
    # Indexes for the lists of received messages, of sent messages, and of the messages between two users.
    __table_args__ = (
        sa.CheckConstraint("sender_id <> recipient_id", name="not_self"),
        sa.Index("ix_message_recipient_id_timestamp_id", "recipient_id", "timestamp", "id"),
        sa.Index("ix_message_sender_id_timestamp_id", "sender_id", "timestamp", "id"),
        sa.Index("ix_message_sender_id_recipient_id_timestamp_id", "sender_id", "recipient_id", "timestamp", "id"),
        sa.Index("ix_message_unread", "recipient_id", "sender_id", sqlite_where=_UNREAD, postgresql_where=_UNREAD),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    sender_id: Mapped[int] = mapped_column(sa.ForeignKey("user.id", ondelete="CASCADE"))
    recipient_id: Mapped[int] = mapped_column(sa.ForeignKey("user.id", ondelete="CASCADE"))
    body: Mapped[str] = mapped_column(sa.String(MAX_MESSAGE))
    timestamp: Mapped[datetime] = mapped_column(default=DatabaseTime())
    read_at: Mapped[datetime | None]
    sender_deleted_at: Mapped[datetime | None]
    recipient_deleted_at: Mapped[datetime | None]

    sender: Mapped[User] = relationship(foreign_keys=sender_id)
    recipient: Mapped[User] = relationship(foreign_keys=recipient_id)
