"""Start an export, and find the archive that a user may download."""

from __future__ import annotations

from celery import Signature, chain
from flask import current_app
from flask_babel import gettext as _

from microblog.accounts.models import User
from microblog.clock import utcnow
from microblog.exports.archive import archive_storage
from microblog.exports.emails import LINK
from microblog.exports.models import Archive
from microblog.exports.tasks import email_export, export_posts
from microblog.extensions import db
from microblog.security import LinkInvalid, read_signed
from microblog.taskqueue.launch import register_job
from microblog.taskqueue.models import Task
from microblog.validators import is_storable


class ArchiveNotFound(LookupError):
    """Raised if the user has no such archive, or it has expired."""


@register_job("export_posts")
def export_job(user_id: int) -> Signature:
    """Return the job ``export_posts``: export all posts of a user, then mail the archive."""
    return chain(export_posts.s(user_id), email_export.s())


def start_export(user: User) -> Task:
    """Start an export of all posts of `user`, in the caller's transaction; return the first step's row.

    Raises AlreadyRunning if one is unfinished.
    """
    return user.launch_task("export_posts", _("Exporting your posts"))


def find_archive(archive_id: str, user_id: int, token: str | None = None) -> Archive:
    """Return the archive for its owner; `token` comes from the link in a mail, if that was followed.

    Raises ArchiveNotFound, and security.LinkExpired or security.LinkInvalid for the token.
    """
    archive = db.session.get(Archive, archive_id) if is_storable(archive_id) else None
    if archive is None or archive.user_id != user_id or archive.expires_at <= utcnow():
        raise ArchiveNotFound(archive_id)
    if token and read_signed(LINK, token, current_app.config["EXPORT_LINK_LIFETIME"]) != archive.id:
        raise LinkInvalid
    if not archive_storage().exists(archive.path):
        raise ArchiveNotFound(archive_id)
    return archive
