"""/import: upload a file of posts, and download the list of rejected entries."""

from __future__ import annotations

from flask import (
    Blueprint,
    Response,
    abort,
    current_app,
    flash,
    redirect,
    render_template,
    stream_with_context,
    url_for,
)
from flask.typing import ResponseReturnValue
from flask_babel import gettext as _
from flask_babel import lazy_gettext as _l
from flask_login import current_user, login_required
from flask_wtf import FlaskForm
from flask_wtf.file import FileField, FileRequired

from microblog.extensions import csrf
from microblog.imports import rejected_entries, uploads
from microblog.jobs.models import find_job
from microblog.rate_limits import limit_launches
from microblog.security import accepts_upload, check_form_token
from microblog.storage import CHUNK
from microblog.taskqueue.errors import AlreadyRunning

bp = Blueprint("imports", __name__, url_prefix="/import")


class ImportForm(FlaskForm):
    """Upload of a file of posts."""

    file = FileField(_l("File"), [FileRequired(_l("Choose a file first."))], render_kw={"accept": ".json"})


@bp.get("")
@login_required
def form() -> ResponseReturnValue:
    """Show the upload form and the accepted formats."""
    return _page(ImportForm())


@bp.post("")
@csrf.exempt  # checked in the view: the check before the view would read the whole file before the rate limit applies
@accepts_upload("IMPORT_MAX_SIZE")
@login_required
@limit_launches()
def upload() -> ResponseReturnValue:
    """Store the file and start its import, unless one is running."""
    check_form_token()
    form = ImportForm()
    if not form.validate_on_submit():
        return _page(form), 422
    try:
        uploads.start(current_user, iter(lambda: form.file.data.stream.read(CHUNK), b""))
    except uploads.NotAPostsFile as error:
        form.file.errors = [str(error)]
        return _page(form), 422
    except AlreadyRunning:
        flash(_("An import is already running. Wait until it has ended, or cancel it."), "warning")
        return redirect(url_for("tasks.index"))
    flash(_("Your import has started. Stay and watch, or go: what came of it will be here."))
    return redirect(url_for("tasks.index"))


@bp.get("/<task_id>/refusals")
@login_required
def rejected(task_id: str) -> ResponseReturnValue:
    """Download the rejected entries of one of the user's imports as CSV."""
    job = find_job(task_id, current_user.id)
    upload_id = uploads.id_of(job) if job else None
    if upload_id is None or not rejected_entries.exist(upload_id):
        abort(404, _("There is no such list, or it has expired."))
    response = Response(stream_with_context(rejected_entries.to_csv(upload_id)), mimetype="text/csv")
    response.headers.set("Content-Disposition", "attachment", filename="refusals.csv")
    return response


def _page(form: ImportForm) -> str:
    return render_template("imports/form.html", form=form, limit=current_app.config["IMPORT_MAX_SIZE"])
