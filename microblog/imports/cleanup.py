"""Delete uploaded files."""

from __future__ import annotations

import sqlalchemy as sa

from microblog.clock import utcnow
from microblog.extensions import db
from microblog.imports import rejected_entries
from microblog.imports.models import Refusal, Upload
from microblog.imports.uploads import current_storage
from microblog.storage import PARTS
from microblog.taskqueue.models import Task

BATCH = 100  # uploads deleted in one transaction


def delete_expired() -> int:
    """Delete the uploads that have had their time, or have lost their user, and what was refused; returns how many.

    One that may be being read is left until that has ended: an import of its user is unfinished.
    """
    importing = sa.exists().where(Task.user_id == Upload.user_id, Task.name == "import_posts", Task.unfinished)
    return _delete(sa.or_(Upload.user_id.is_(None), sa.and_(Upload.expires_at <= utcnow(), ~importing)))


def delete_refused(user_id: int, but: str) -> int:
    """Delete a user's uploads of which something was refused, with that list, except `but`; returns how many.

    For the import of `but`, while it has refused nothing: what is listed for one user is of one file.
    """
    of_some = sa.exists().where(Refusal.upload_id == Upload.id)
    return _delete(sa.and_(Upload.user_id == user_id, Upload.id != but, of_some))


def delete_all_of(user_id: int) -> int:
    """Delete the uploads of a user whose jobs have ended; returns how many."""
    return _delete(Upload.user_id == user_id)


def delete_waiting(user_id: int, but: str) -> int:
    """Delete a user's files that wait for another attempt, except the upload `but`, and commit; returns how many.

    For the transaction that has launched the import of `but`: no other import of theirs is unfinished in it. An upload
    whose file is not whole yet is left alone.
    """
    others = db.session.scalars(sa.select(Upload).where(Upload.user_id == user_id, Upload.id != but))
    storage = current_storage()
    return _delete(Upload.id.in_([upload.id for upload in others if storage.exists(upload.path)]))


def _delete(unwanted: sa.ColumnElement[bool]) -> int:
    storage, deleted = current_storage(), 0
    while batch := db.session.scalars(sa.select(Upload).where(unwanted).limit(BATCH)).all():
        paths = {upload.id: upload.path for upload in batch}
        for upload_id, path in paths.items():
            for file in (f"{PARTS}/{path}", path):  # first what could be moved into place behind our back
                storage.delete(file)
            rejected_entries.delete_all_of(upload_id)
        db.session.execute(sa.delete(Upload).where(Upload.id.in_(paths)))
        db.session.commit()
        deleted += len(batch)
    return deleted
