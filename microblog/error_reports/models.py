"""Table of error reports."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from microblog.clock import utcnow
from microblog.extensions import Model


class ErrorReport(Model):
    """An error of a request (`method`, `path`) or of a task (`task_id`, `task_name`).

    It contains no values of forms, headers, cookies or task arguments. `suppressed` is the number of equal errors since
    the previous mail.
    """

    __tablename__ = "error_report"
    __table_args__ = {"sqlite_autoincrement": True}

    id: Mapped[int] = mapped_column(primary_key=True)
    exception: Mapped[str] = mapped_column(sa.String(255))
    place: Mapped[str] = mapped_column(sa.String(255))
    traceback: Mapped[str] = mapped_column(sa.Text)
    suppressed: Mapped[int] = mapped_column(default=0)
    method: Mapped[str | None] = mapped_column(sa.String(16))
    path: Mapped[str | None] = mapped_column(sa.String(255))
    task_id: Mapped[str | None] = mapped_column(sa.String(36))
    task_name: Mapped[str | None] = mapped_column(sa.String(128))
    request_id: Mapped[str | None] = mapped_column(sa.String(64))
    user_id: Mapped[int | None]
    created_at: Mapped[datetime] = mapped_column(default=utcnow, index=True)

    @property
    def kind(self) -> str:
        """The fingerprint that equal errors share."""
        return f"{self.exception} {self.place}"
