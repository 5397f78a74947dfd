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
    """An archive, whose row is committed before its file is written, so that the file is found whatever is killed.

    Its id is the id of the job that writes it, `attempt` the number of the latest attempt (Task.attempts). `path` is
    relative to the storage, `size` in bytes, `sha256` in hex; it is empty until all posts are written.
    """

    __tablename__ = "archive"

    id: Mapped[str] = mapped_column(sa.String(36), primary_key=True)
    user_id: Mapped[int] = mapped_column(sa.ForeignKey("user.id", ondelete="CASCADE"), index=True)
    attempt: Mapped[int] = mapped_column(default=0, server_default="0")
    path: Mapped[str] = mapped_column(sa.String(255))
    posts: Mapped[int] = mapped_column(default=0)
    size: Mapped[int] = mapped_column(sa.BigInteger, default=0)
    sha256: Mapped[str] = mapped_column(sa.String(64), default="")
    created_at: Mapped[datetime] = mapped_column(default=utcnow)
    expires_at: Mapped[datetime] = mapped_column(index=True)


def archive_path(job_id: str, attempt: int) -> str:
    """Return the path of an attempt's archive; each attempt has its own file, so that none overwrites another's."""
    return f"{job_id}.{attempt}.json"


def earlier_paths(job_id: str, attempt: int) -> list[str]:
    """Return the paths of the attempts before `attempt`."""
    return [archive_path(job_id, earlier) for earlier in range(1, attempt)]


def record(**values: Any) -> None:
    """Store columns of the row of an archive, which may exist from before or from an earlier attempt, and commit.

    Raises ClaimLost if a later attempt has started.
    """
    insert = dialect_insert(db.engine, Archive)
    replaced = {name: insert.excluded[name] for name in values if name != "id"} | {"created_at": utcnow()}
    statement = insert.values(**values).on_conflict_do_update(
        index_elements=[Archive.id], set_=replaced, where=Archive.attempt <= insert.excluded.attempt
    )
    recorded = db.session.scalar(statement.returning(Archive.id))
    db.session.commit()
    if recorded is None:
        raise ClaimLost(f"a later attempt already writes the archive of job {values['id']}")
