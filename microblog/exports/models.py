"""Table of archives."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from microblog.clock import utcnow
from microblog.database import dialect_insert
from microblog.extensions import Model, db
from microblog.taskqueue.errors import ClaimLost


class Archive(Model):
    """A written archive. If its attempt died before the move to `path`, the file is missing until the next attempt.

    Its id is the id of the job that created it, `attempt` the number of the attempt (Task.attempts). `path` is
    relative to the storage, `size` in bytes, `sha256` in hex.
    """

    __tablename__ = "archive"

    id: Mapped[str] = mapped_column(sa.String(36), primary_key=True)
    user_id: Mapped[int] = mapped_column(sa.ForeignKey("user.id", ondelete="CASCADE"), index=True)
    attempt: Mapped[int] = mapped_column(default=0, server_default="0")
    path: Mapped[str] = mapped_column(sa.String(255))
    posts: Mapped[int]
    size: Mapped[int] = mapped_column(sa.BigInteger)
    sha256: Mapped[str] = mapped_column(sa.String(64))
    created_at: Mapped[datetime] = mapped_column(default=utcnow)
    expires_at: Mapped[datetime] = mapped_column(index=True)


def archive_path(job_id: str, attempt: int) -> str:
    """Return the path of an attempt's archive; each attempt has its own file, so that none overwrites another's."""
    return f"{job_id}.{attempt}.json"


def record(**values: Any) -> None:
    """Store the row of an archive, replacing that of an earlier attempt, and commit.

    Raises ClaimLost if a later attempt has already created an archive.
    """
    insert = dialect_insert(db.engine, Archive)
    replaced = {name: insert.excluded[name] for name in values if name != "id"} | {"created_at": utcnow()}
    statement = insert.values(**values).on_conflict_do_update(
        index_elements=[Archive.id], set_=replaced, where=Archive.attempt <= insert.excluded.attempt
    )
    recorded = db.session.scalar(statement.returning(Archive.id))
    db.session.commit()
    if recorded is None:
        raise ClaimLost(f"a later attempt has already created the archive of job {values['id']}")
