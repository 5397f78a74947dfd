"""Accept an uploaded file, store it, and launch its import; used by the page and the API."""

from __future__ import annotations

import codecs
from collections.abc import Iterable
from datetime import timedelta
from itertools import chain

from flask import current_app
from flask_babel import gettext as _

from microblog.accounts.models import User
from microblog.clock import utcnow
from microblog.extensions import db
from microblog.imports import cleanup, rejected_entries
from microblog.imports.models import Upload, current_storage
from microblog.jobs.models import Job
from microblog.taskqueue.interface import AlreadyRunning
from microblog.taskqueue.models import Task


class NotAPostsFile(ValueError):
    """The upload does not start like a JSON object; the message is a sentence for the user."""


def start(user: User, chunks: Iterable[bytes]) -> Task:
    """Store the file in `chunks`, launch its import as a job of `user`, and commit.

    The user's uploads that are kept for a retry are deleted. Raises NotAPostsFile, or AlreadyRunning if an import of
    the user is unfinished; in both cases the file is not stored.
    """
    if running := user.get_task_in_progress("import_posts"):  # check early, to avoid storing the file in vain
        raise AlreadyRunning(running)
    upload = _store(user, _checked(chunks))
    upload_id, path = upload.id, upload.path
    try:
        task = user.launch_task("import_posts", _("Importing your posts"), upload_id)
        cleanup.delete_other_uploads(user.id, but=upload_id)
        db.session.commit()
    except AlreadyRunning:
        db.session.rollback()
        current_storage().delete(path)
        raise
    return task


def id_of(job: Job) -> str | None:
    """Return the id of the upload that `job` imports, even if it has been deleted; None if the job is not an import."""
    return job.root.signature["args"][1] if job.root.name == "import_posts" else None


def has_refusals(job: Job) -> bool:
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
    """Write `chunks` to the storage, where they are kept for ``IMPORT_LIFETIME`` seconds."""
    lifetime = timedelta(seconds=current_app.config["IMPORT_LIFETIME"])
    upload = Upload(user_id=user.id, expires_at=utcnow() + lifetime)
    db.session.add(upload)
    db.session.commit()
    with current_storage().new(upload.path) as stored:
        stored.write(chunks)
    return upload
