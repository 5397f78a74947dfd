"""Tasks that import a file and delete expired uploads."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from celery import shared_task
from flask import current_app
from flask_babel import gettext as _
from flask_babel import lazy_gettext as _l

from microblog.clock import utcnow
from microblog.database import DatabaseUnavailable
from microblog.extensions import db
from microblog.imports import rejected_entries, uploads
from microblog.imports.importer import read_upload
from microblog.imports.models import Upload, upload_storage
from microblog.notifications import renderers
from microblog.taskqueue.errors import JobError
from microblog.taskqueue.worker import JobTask

renderers.renders_job_end("import_posts", _l("Your import is done."), _l("Your import has failed."))


@shared_task(
    name="import_posts",
    queue_name="exports",
    bind=True,
    title=_l("Importing your posts"),
    autoretry_for=(DatabaseUnavailable, OSError),
    retry_backoff=2,
    retry_backoff_max=60,
    max_retries=8,
)
def import_posts(self: JobTask, user_id: int, upload_id: str) -> dict[str, Any]:
    """Import the posts of a file that a user uploaded. Return the report (importer.Report.to_dict())."""
    upload = db.session.get(Upload, upload_id)
    if upload is None or upload.user_id != user_id:
        raise _file_missing()
    report = upload.report  # set if a previous attempt was killed after it had read the file
    db.session.rollback()
    if report is None:
        report = _read(self, upload_id, user_id)
    upload_storage().delete(upload.path)
    db.session.rollback()
    return report


@shared_task(name="sweep_uploads", ignore_result=True, interval_setting="SWEEP_INTERVAL")
def sweep_uploads() -> None:
    """Delete expired uploads."""
    uploads.delete_expired()


def _read(task: JobTask, upload_id: str, user_id: int) -> dict[str, Any]:
    try:
        report = read_upload(task, upload_id, user_id)
    except JobError:  # the file is broken or has another format, so a retry cannot succeed
        _discard(upload_id)
        raise
    except (FileNotFoundError, LookupError) as error:
        raise _file_missing() from error
    upload = db.session.get_one(Upload, upload_id)
    upload.report, upload.expires_at = report, _expiry(upload_id)
    db.session.commit()
    return report


def _discard(upload_id: str) -> None:
    """Delete the file; the cleanup task deletes the row once it has expired."""
    db.session.rollback()
    upload = db.session.get(Upload, upload_id)
    if upload is not None:
        path, upload.expires_at = upload.path, _expiry(upload_id)
        db.session.commit()
        upload_storage().delete(path)


def _expiry(upload_id: str) -> datetime:
    """Return the expiry of an upload that has been read: rejected entries are stored as long as an exported archive."""
    lifetime = current_app.config["EXPORT_LIFETIME"] if rejected_entries.exist(upload_id) else 0
    return utcnow() + timedelta(seconds=lifetime)


def _file_missing() -> JobError:
    return JobError(_("The uploaded file is no longer there. Please upload it again."))
