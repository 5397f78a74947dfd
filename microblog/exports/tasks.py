"""Tasks that build an archive, mail it, and clean up."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from celery import shared_task
from flask import current_app
from flask_babel import gettext as _
from flask_babel import lazy_gettext as _l

from microblog.accounts.models import User
from microblog.clock import utcnow
from microblog.database import DatabaseUnavailable
from microblog.exports import cleanup
from microblog.exports.archive import archive_storage, count_posts, read_posts, to_json
from microblog.exports.emails import archive_email
from microblog.exports.models import Archive, archive_path, earlier_paths, record
from microblog.extensions import db
from microblog.mail.sending import MailTask, deliver
from microblog.notifications import renderers
from microblog.posts.services import describe_progress
from microblog.taskqueue.errors import JobError
from microblog.taskqueue.interface import Progress
from microblog.taskqueue.worker import JobTask

renderers.renders_job_end("export_posts", _l("Your export is ready."), _l("Your export has failed."))


@shared_task(
    name="export_posts",
    bind=True,
    title=_l("Exporting your posts"),
    queue_name="exports",
    autoretry_for=(DatabaseUnavailable, OSError),
    retry_backoff=2,
    retry_backoff_max=60,
    max_retries=8,
)
def export_posts(self: JobTask, user_id: int) -> dict[str, Any]:
    """Write all posts of a user to an archive; return its id, size and checksum for the next step.

    If the job is cancelled, Progress raises Cancelled, and Storage.new() deletes the unfinished file.
    """
    path, storage, total = archive_path(self.job_id, self.attempt), archive_storage(), count_posts(user_id)
    expires_at = utcnow() + timedelta(seconds=current_app.config["EXPORT_LIFETIME"])
    row = {"id": self.job_id, "attempt": self.attempt, "user_id": user_id, "path": path, "expires_at": expires_at}
    record(**row)
    for earlier in earlier_paths(self.job_id, self.attempt):
        storage.delete(earlier)  # its worker may have died while it wrote it
    with storage.new(path) as file:
        with Progress(self, total, describe=describe_progress) as progress:
            file.write(to_json(_counted(read_posts(user_id), progress)))
        columns = {"posts": progress.current, "size": file.size, "sha256": file.sha256}
        record(**row, **columns)  # before the file is complete, which an attempt that lost its claim must not achieve
    return {"archive_id": self.job_id, **columns}


@shared_task(name="email_export", bind=True, base=MailTask, title=_l("Mailing your archive"))
def email_export(self: MailTask, exported: dict[str, Any]) -> dict[str, Any]:
    """Mail the archive in `exported`, the result of export_posts, to its owner: attached if small, else as a link."""
    archive = db.session.get(Archive, exported["archive_id"])
    user = User.with_id(archive.user_id) if archive else None
    if archive is None or user is None:
        raise JobError(_("The archive is no longer there."))
    return deliver(self, archive_email(user, archive))


@shared_task(name="sweep_archives", ignore_result=True, interval_setting="SWEEP_INTERVAL")
def sweep_archives() -> None:
    """Delete expired archives, and those of exports that failed."""
    cleanup.delete_expired()
    cleanup.delete_archives_of_failed_exports()


def _counted(batches: Iterator[list[dict[str, Any]]], progress: Progress) -> Iterator[list[dict[str, Any]]]:
    for batch in batches:
        yield batch
        progress.advance(len(batch))
