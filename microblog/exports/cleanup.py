"""Delete archives that have expired, and files that a fault left behind."""

from __future__ import annotations

import posixpath
import re
from datetime import timedelta

import sqlalchemy as sa

from microblog.clock import utcnow
from microblog.exports.archive import current_storage
from microblog.exports.models import Archive, path_of
from microblog.extensions import db
from microblog.taskqueue import states
from microblog.taskqueue.models import Task, is_attempt_current

PART = re.compile(r"([^.]+)\.(\d+)\.json")
SLEEP = timedelta(days=1)
BATCH = 100  # archives deleted in one transaction


def delete_expired() -> int:
    """Delete the archives that have had their time; returns how many."""
    return _delete(sa.select(Archive).where(Archive.expires_at <= utcnow()))


def delete_unwanted() -> int:
    """Delete the archives whose job was cancelled, or failed, before it could say that it had made one.

    Returns how many.
    """
    jobs_end = sa.select(Archive).join(Task, Task.id == Archive.id)
    return _delete(jobs_end.where(Task.state.in_([states.FAILURE, states.REVOKED])))


def delete_superseded() -> int:
    """Delete the files of attempts that lost their job to a later one, and woke up to finish theirs.

    Returns how many. Looks at archives of the last day: nobody sleeps longer.
    """
    storage, deleted = current_storage(), 0
    late = sa.select(Archive).where(Archive.attempt > 1, Archive.created_at > utcnow() - SLEEP)
    for archive in db.session.scalars(late):
        for path in _superseded(archive):
            if storage.exists(path):
                storage.delete(path)
                deleted += 1
    return deleted


def delete_abandoned_parts() -> int:
    """Delete what was being written by a worker that is gone; returns how many files.

    A part is ``<job>.<attempt>.json``; it is alive while its job's export is on that very attempt.
    """
    storage, deleted = current_storage(), 0
    for part in storage.parts():
        name = PART.fullmatch(posixpath.basename(part))
        if name is None:
            continue  # not ours
        job_id, attempt = name.groups()
        if not is_attempt_current(job_id, int(attempt)):
            storage.delete(part)
            deleted += 1
    return deleted


def delete_all_of(user_id: int) -> int:
    """Delete the archives of a user whose jobs have ended; returns how many."""
    delete_abandoned_parts()  # first, as ever: whoever is still writing one must not move it into place
    return _delete(sa.select(Archive).where(Archive.user_id == user_id))


def _delete(archives: sa.Select[Archive]) -> int:
    """Delete archives, the file first: a row without a file can be deleted again, a file without a row cannot."""
    storage, deleted = current_storage(), 0
    while batch := db.session.scalars(archives.limit(BATCH)).all():
        for archive in batch:
            for path in (*_superseded(archive), archive.path):
                storage.delete(path)
            db.session.delete(archive)
        db.session.commit()
        deleted += len(batch)
    return deleted


def _superseded(archive: Archive) -> list[str]:
    return [path_of(archive.id, attempt) for attempt in range(1, archive.attempt)]
