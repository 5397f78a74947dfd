"""Delete expired archives, and files left behind by failures."""

from __future__ import annotations

import posixpath
import re
from datetime import timedelta

import sqlalchemy as sa

from microblog.accounts.deletion import on_account_deletion
from microblog.clock import utcnow
from microblog.exports.archive import archive_storage
from microblog.exports.models import Archive, archive_path
from microblog.extensions import db
from microblog.taskqueue import states
from microblog.taskqueue.models import Task, is_attempt_current

PART = re.compile(r"([^.]+)\.(\d+)\.json")
MAX_SUSPENSION = timedelta(days=1)
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


def delete_superseded() -> int:
    """Delete the files of attempts that were frozen, lost their claim and then finished; return their number.

    Assumes that no attempt is frozen for more than a day: only archives of the last day are checked.
    """
    storage, deleted = archive_storage(), 0
    late = sa.select(Archive).where(Archive.attempt > 1, Archive.created_at > utcnow() - MAX_SUSPENSION)
    for archive in db.session.scalars(late):
        for path in _superseded(archive):
            if storage.exists(path):
                storage.delete(path)
                deleted += 1
    return deleted


def delete_abandoned_parts() -> int:
    """Delete the partial files of workers that are gone; return their number.

    A part is ``<job>.<attempt>.json``; it is in use while that attempt is the current one of the job's export.
    """
    storage, deleted = archive_storage(), 0
    for part in storage.parts():
        name = PART.fullmatch(posixpath.basename(part))
        if name is None:
            continue  # not a part of an archive
        job_id, attempt = name.groups()
        if not is_attempt_current(job_id, int(attempt)):
            storage.delete(part)
            deleted += 1
    return deleted


@on_account_deletion("archives")
def delete_archives_of_user(user_id: int) -> int:
    """Delete the archives of a user whose jobs have ended; return their number."""
    delete_abandoned_parts()  # first: an attempt that is still writing must not move its part into place
    return _delete(sa.select(Archive).where(Archive.user_id == user_id))


def _delete(archives: sa.Select[Archive]) -> int:
    """Delete archives, each file before its row: a row without a file is found again, a file without a row is not."""
    storage, deleted = archive_storage(), 0
    while batch := db.session.scalars(archives.limit(BATCH)).all():
        for archive in batch:
            for path in (*_superseded(archive), archive.path):
                storage.delete(path)
            db.session.delete(archive)
        db.session.commit()
        deleted += len(batch)
    return deleted


def _superseded(archive: Archive) -> list[str]:
    return [archive_path(archive.id, attempt) for attempt in range(1, archive.attempt)]
