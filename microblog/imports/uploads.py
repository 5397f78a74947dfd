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
from microblog.imports.models import Upload
from microblog.jobs.models import Job
from microblog.storage import Storage
from microblog.taskqueue.interface import AlreadyRunning
from microblog.taskqueue.models import Task


def current_storage() -> Storage:
    """The storage that ``IMPORT_STORAGE_URL`` names."""
    return Storage(current_app.config["IMPORT_STORAGE_URL"])


class NoPosts(ValueError):
    """The upload does not begin like a file of posts; the message is a sentence for the user."""


def start(user: User, chunks: Iterable[bytes]) -> Task:
    """Store what `chunks` have, start its import as a job of `user`, and commit that.

    Files of theirs that wait for another attempt make room for it. Raises NoPosts, and AlreadyRunning if an import of
    theirs is unfinished; then nothing is kept.
    """
    if running := user.get_task_in_progress("import_posts"):  # before the file is stored for nothing
        raise AlreadyRunning(running)
    upload = _store(user, _checked(chunks))
    upload_id, path = upload.id, upload.path
    try:
        task = user.launch_task("import_posts", _("Importing your posts"), upload_id)
        cleanup.delete_waiting(user.id, but=upload_id)
        db.session.commit()
    except AlreadyRunning:
        db.session.rollback()
        current_storage().delete(path)
        raise
    return task


def id_of(job: Job) -> str | None:
    """The id of the upload that `job` imports, whether or not that is still there; None if it is no import."""
    return job.root.signature["args"][1] if job.root.name == "import_posts" else None


def has_refusals(job: Job) -> bool:
    """Return whether `job` is an import that has refused something, of which the list is still there."""
    upload_id = id_of(job)
    return upload_id is not None and rejected_entries.exist(upload_id)


def _checked(chunks: Iterable[bytes]) -> Iterable[bytes]:
    """`chunks`, the first of which must begin like a JSON object: a packed archive does not."""
    chunks = iter(chunks)
    first = next(chunks, b"")
    if not first.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"{"):
        raise NoPosts(
            _("This is no JSON file. If it is a packed archive, unpack it and choose posts.json or outbox.json.")
        )
    return chain([first], chunks)


def _store(user: User, chunks: Iterable[bytes]) -> Upload:
    """Keep `chunks` in the storage, for ``IMPORT_LIFETIME`` seconds."""
    lifetime = timedelta(seconds=current_app.config["IMPORT_LIFETIME"])
    upload = Upload(user_id=user.id, expires_at=utcnow() + lifetime)
    db.session.add(upload)
    db.session.commit()
    with current_storage().new(upload.path) as stored:
        stored.write(chunks)
    return upload
