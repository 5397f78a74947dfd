"""Table of mails that a server has accepted, which prevents sending one twice."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from microblog.clock import utcnow
from microblog.extensions import Model


class SentMail(Model):
    """A mail that the SMTP server accepted with 250. Its id is the id of the task that sent it."""

    __tablename__ = "sent_mail"

    id: Mapped[str] = mapped_column(sa.String(36), primary_key=True)
    message_id: Mapped[str] = mapped_column(sa.String(255))
    accepted_at: Mapped[datetime] = mapped_column(default=utcnow, index=True)
