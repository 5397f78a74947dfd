"""/import: upload a file of posts, to be read back by a task."""

from __future__ import annotations

from datetime import timedelta

from flask import Blueprint, current_app, flash, redirect, render_template, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext as _
from flask_login import current_user, login_required
from werkzeug.datastructures import FileStorage

from microblog.clock import utcnow
from microblog.extensions import db
from microblog.imports import sweep
from microblog.imports.forms import ImportForm
from microblog.imports.models import Upload
from microblog.imports.storage import current_storage
from microblog.limits import limit_launches
from microblog.security import takes_upload
from microblog.storage import CHUNK
from microblog.taskqueue.launch import AlreadyRunning

bp = Blueprint("imports", __name__, url_prefix="/import")


@bp.get("")
@login_required
def form() -> ResponseReturnValue:
    """The form, and what it takes."""
    return _page(ImportForm())


@bp.post("")
@takes_upload("IMPORT_MAX_SIZE")
@login_required
@limit_launches()
def upload() -> ResponseReturnValue:
    """Store the file and start its import, unless one is running."""
    if current_user.get_task_in_progress("import_posts"):  # before the file is stored for nothing
        return _refuse_second()
    form = ImportForm()
    if not form.validate_on_submit():
        return _page(form), 422
    upload = _store(form.file.data)
    upload_id, path = upload.id, upload.path
    try:
        current_user.launch_task("import_posts", _("Importing your posts"), upload_id)
        sweep.delete_waiting(current_user.id, but=upload_id)
        db.session.commit()
    except AlreadyRunning:
        db.session.rollback()
        current_storage().delete(path)
        return _refuse_second()
    flash(_("Your import has started. Stay and watch, or go: what came of it will be here."))
    return redirect(url_for("tasks.index"))


def _store(file: FileStorage) -> Upload:
    """Keep `file` in the storage, a piece at a time, for ``IMPORT_LIFETIME`` seconds."""
    lifetime = timedelta(seconds=current_app.config["IMPORT_LIFETIME"])
    upload = Upload(user_id=current_user.id, expires_at=utcnow() + lifetime)
    db.session.add(upload)
    db.session.commit()
    with current_storage().new(upload.path) as stored:
        stored.write(iter(lambda: file.stream.read(CHUNK), b""))
    return upload


def _refuse_second() -> ResponseReturnValue:
    flash(_("An import is already running. Wait until it has ended, or cancel it."), "warning")
    return redirect(url_for("tasks.index"))


def _page(form: ImportForm) -> str:
    return render_template("imports/form.html", form=form, limit=current_app.config["IMPORT_MAX_SIZE"])
