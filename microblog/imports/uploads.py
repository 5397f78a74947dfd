"""Uploaded files: store one and launch its import, for the page and the API; delete them."""

from __future__ import annotations

import codecs
from collections.abc import Iterable
from datetime import timedelta
from itertools import chain

import sqlalchemy as sa
from flask import current_app
from flask_babel import gettext as _

from microblog.accounts.deletion import on_account_deletion
from microblog.accounts.models import User
from microblog.clock import utcnow
from microblog.extensions import db
from microblog.imports import rejected_entries
from microblog.imports.models import RejectedEntry, Upload, upload_storage
from microblog.jobs.models import Job
from microblog.taskqueue.errors import AlreadyRunning
from microblog.taskqueue.models import Task

BATCH = 100  # uploads deleted in one transaction


class NotAPostsFile(ValueError):
    """The upload does not start like a JSON object; the message is a sentence for the user."""


def start(user: User, chunks: Iterable[bytes]) -> Task:
    """Store the file in `chunks`, launch its import as a job of `user`, and commit.

    The user's other uploads, stored for a retry, are deleted. Raises NotAPostsFile, or AlreadyRunning if an import of
    the user is unfinished; in both cases the file is not stored.
    """
    if running := user.get_task_in_progress("import_posts"):  # check early, to avoid storing the file in vain
        raise AlreadyRunning(running)
    upload = _store(user, _checked(chunks))
    upload_id, path = upload.id, upload.path
    try:
        task = user.launch_task("import_posts", _("Importing your posts"), upload_id)
        delete_other_uploads(user.id, kept_id=upload_id)
        db.session.commit()
    except AlreadyRunning:
        db.session.rollback()
        upload_storage().delete(path)
        raise
    return task


def id_of(job: Job) -> str | None:
    """Return the id of the upload that `job` imports, even if it has been deleted; None if the job is not an import."""
    return job.root.signature["args"][1] if job.root.name == "import_posts" else None


def has_rejected_entries(job: Job) -> bool:
    """Return True if `job` is an import with rejected entries that have not been deleted yet."""
    upload_id = id_of(job)
    return upload_id is not None and rejected_entries.exist(upload_id)


def _checked(chunks: Iterable[bytes]) -> Iterable[bytes]:
    """Return `chunks` unchanged. Raises NotAPostsFile if they do not start like a JSON object, as a ZIP archive."""
    chunks = iter(chunks)
    first = next(chunks, b"")
    if not first.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"{"):
        raise NotAPostsFile(
            _("This is no JSON file. If it is a packed archive, unpack it and choose posts.json or outbox.json.")
        )
    return chain([first], chunks)


def _store(user: User, chunks: Iterable[bytes]) -> Upload:
    """Store `chunks` for ``IMPORT_LIFETIME`` seconds."""
    lifetime = timedelta(seconds=current_app.config["IMPORT_LIFETIME"])
    upload = Upload(user_id=user.id, expires_at=utcnow() + lifetime)
    db.session.add(upload)
    db.session.commit()
    with upload_storage().new(upload.path) as stored:
        stored.write(chunks)
    return upload


def delete_expired() -> int:
    """Delete expired uploads, uploads of deleted users, and their rejected entries. Return the number of uploads.

    An expired upload is skipped while an import of its user is unfinished, since that import may be reading it.
    """
    importing = sa.exists().where(Task.user_id == Upload.user_id, Task.name == "import_posts", Task.unfinished)
    return _delete(sa.or_(Upload.user_id.is_(None), sa.and_(Upload.expires_at <= utcnow(), ~importing)))


def delete_uploads_with_rejected_entries(user_id: int, kept_id: str) -> int:
    """Delete a user's uploads that have rejected entries, and these entries, except for the upload `kept_id`.

    Return the number of uploads. The import of `kept_id` calls this before it stores rejected entries of its own, so
    that a user has those of one file at most.
    """
    has_rejected = sa.exists().where(RejectedEntry.upload_id == Upload.id)
    return _delete(sa.and_(Upload.user_id == user_id, Upload.id != kept_id, has_rejected))


@on_account_deletion("uploads")
def delete_by_user(user_id: int) -> int:
    """Delete all uploads of a user, whose jobs must have finished. Return the number of uploads."""
    return _delete(Upload.user_id == user_id)


def delete_other_uploads(user_id: int, kept_id: str) -> int:
    """Delete a user's uploads except for `kept_id`, each stored for a retry, and commit. Return the number of uploads.

    Call this in the transaction that launched the import of `kept_id`, in which the user has no other unfinished
    import. An upload whose file is still being written is skipped.
    """
    others = db.session.scalars(sa.select(Upload).where(Upload.user_id == user_id, Upload.id != kept_id))
    storage = upload_storage()
    return _delete(Upload.id.in_([upload.id for upload in others if storage.exists(upload.path)]))


def _delete(condition: sa.ColumnElement[bool]) -> int:
    storage, deleted = upload_storage(), 0
    while batch := db.session.scalars(sa.select(Upload).where(condition).limit(BATCH)).all():
        paths = {upload.id: upload.path for upload in batch}
        for upload_id, path in paths.items():
            storage.delete(path)
            rejected_entries.delete_by_upload(upload_id)
        db.session.execute(sa.delete(Upload).where(Upload.id.in_(paths)))
        db.session.commit()
        deleted += len(batch)
    return deleted
