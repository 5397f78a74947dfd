"""Delete expired archives, and those of exports that failed."""

from __future__ import annotations

import sqlalchemy as sa

from microblog.accounts.deletion import on_account_deletion
from microblog.clock import utcnow
from microblog.exports.archive import archive_storage
from microblog.exports.models import Archive, earlier_paths
from microblog.extensions import db
from microblog.taskqueue import states
from microblog.taskqueue.models import Task

BATCH = 100  # archives deleted in one transaction


def delete_expired() -> int:
    """Delete the expired archives; return their number."""
    return _delete(sa.select(Archive).where(Archive.expires_at <= utcnow()))


def delete_archives_of_failed_exports() -> int:
    """Delete the archives whose export, the first step, was cancelled or failed. Those of a failed mail are kept.

    Return their number.
    """
    archives = sa.select(Archive).join(Task, Task.id == Archive.id)
    return _delete(archives.where(Task.state.in_([states.FAILURE, states.REVOKED])))


@on_account_deletion("archives")
def delete_archives_of_user(user_id: int) -> int:
    """Delete the archives of a user whose jobs have ended; return their number."""
    return _delete(sa.select(Archive).where(Archive.user_id == user_id))


def _delete(archives: sa.Select[Archive]) -> int:
    """Delete the files of all attempts, then the row: a row without a file is found again, a file without one is not.

    An attempt that is still writing its file fails.
    """
    storage, deleted = archive_storage(), 0
    while batch := db.session.scalars(archives.limit(BATCH)).all():
        for archive in batch:
            for path in (*earlier_paths(archive.id, archive.attempt), archive.path):
                storage.delete(path)
            db.session.delete(archive)
        db.session.commit()
        deleted += len(batch)
    return deleted
