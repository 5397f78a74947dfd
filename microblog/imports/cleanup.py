"""Delete uploaded files."""

from __future__ import annotations

import sqlalchemy as sa

from microblog.clock import utcnow
from microblog.extensions import db
from microblog.imports import rejected_entries
from microblog.imports.models import RejectedEntry, Upload, current_storage
from microblog.storage import PARTS
from microblog.taskqueue.models import Task

BATCH = 100  # uploads deleted in one transaction


def delete_expired() -> int:
    """Delete expired uploads, uploads of deleted users, and their rejected entries. Return the number of uploads.

    An expired upload is skipped while an import of its user is unfinished, since that import may be reading it.
    """
    importing = sa.exists().where(Task.user_id == Upload.user_id, Task.name == "import_posts", Task.unfinished)
    return _delete(sa.or_(Upload.user_id.is_(None), sa.and_(Upload.expires_at <= utcnow(), ~importing)))


def delete_uploads_with_rejected_entries(user_id: int, but: str) -> int:
    """Delete a user's uploads that have rejected entries, and these entries, but not the upload `but`.

    Return the number of uploads. The import of `but` calls this before it stores rejected entries of its own, so that a
    user has those of one file at most.
    """
    has_rejected = sa.exists().where(RejectedEntry.upload_id == Upload.id)
    return _delete(sa.and_(Upload.user_id == user_id, Upload.id != but, has_rejected))


def delete_by_user(user_id: int) -> int:
    """Delete all uploads of a user, whose jobs must have finished. Return the number of uploads."""
    return _delete(Upload.user_id == user_id)


def delete_other_uploads(user_id: int, but: str) -> int:
    """Delete a user's uploads but `but`, each stored for a retry, and commit. Return the number of uploads.

    Call this in the transaction that launched the import of `but`, in which the user has no other unfinished import.
    An upload whose file is still being written is skipped.
    """
    others = db.session.scalars(sa.select(Upload).where(Upload.user_id == user_id, Upload.id != but))
    storage = current_storage()
    return _delete(Upload.id.in_([upload.id for upload in others if storage.exists(upload.path)]))


def _delete(condition: sa.ColumnElement[bool]) -> int:
    storage, deleted = current_storage(), 0
    while batch := db.session.scalars(sa.select(Upload).where(condition).limit(BATCH)).all():
        paths = {upload.id: upload.path for upload in batch}
        for upload_id, path in paths.items():
            for file in (f"{PARTS}/{path}", path):  # the partial file first: its writer could move it to `path`
                storage.delete(file)
            rejected_entries.delete_by_upload(upload_id)
        db.session.execute(sa.delete(Upload).where(Upload.id.in_(paths)))
        db.session.commit()
        deleted += len(batch)
    return deleted
