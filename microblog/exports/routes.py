"""Request an export and download its archive."""

from __future__ import annotations

from flask import Blueprint, Response, abort, flash, redirect, request, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext as _
from flask_login import current_user, login_required

from microblog.exports.archive import CONTENT_TYPE, FILE_NAME, archive_storage
from microblog.exports.services import ArchiveNotFound, find_archive, start_export
from microblog.extensions import db
from microblog.rate_limits import limit_launches
from microblog.security import LinkExpired, LinkInvalid, referring_path
from microblog.taskqueue.errors import AlreadyRunning

bp = Blueprint("exports", __name__)


@bp.post("/export_posts")
@login_required
@limit_launches()
def export_posts() -> ResponseReturnValue:
    """Start an export of all posts of the user, unless one is running."""
    try:
        start_export(current_user)
        db.session.commit()
    except AlreadyRunning:
        db.session.rollback()
        flash(_("An export is already running. You will get it by mail as soon as it is done."))
    else:
        flash(_("Your export has started. Stay and watch, or go: it will come by mail."))
    return redirect(referring_path() or url_for("posts.profile", username=current_user.username))


@bp.get("/exports/<archive_id>/download")
@login_required
def download(archive_id: str) -> ResponseReturnValue:
    """Send the archive to its owner, or redirect to its bucket; the token of a link in a mail must also be valid."""
    try:
        archive = find_archive(archive_id, current_user.id, request.args.get("token"))
    except LinkExpired:
        abort(410, _("This link has expired. Sign in and download the archive from your tasks page."))
    except (ArchiveNotFound, LinkInvalid):
        abort(404, _("There is no such archive, or it has expired."))
    storage = archive_storage()
    if url := storage.download_url(archive.path, FILE_NAME, CONTENT_TYPE):
        return redirect(url)
    response = Response(storage.read_chunks(archive.path), mimetype=CONTENT_TYPE)
    response.content_length = archive.size
    response.headers.set("Content-Disposition", "attachment", filename=FILE_NAME)
    response.set_etag(archive.sha256)
    return response
