"""/tasks: a user's own jobs; cancel and retry."""

from __future__ import annotations

from flask import Blueprint, abort, flash, redirect, render_template, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext as _
from flask_login import current_user, login_required

from microblog.extensions import db
from microblog.jobs.models import Job, find_job, jobs_of_user
from microblog.jobs.services import InvalidJobState, cancel_job, retry_job
from microblog.pagination import requested_page
from microblog.rate_limits import limit_launches
from microblog.security import referring_path
from microblog.taskqueue.errors import AlreadyRunning

bp = Blueprint("tasks", __name__, url_prefix="/tasks")


@bp.get("")
@login_required
def index() -> ResponseReturnValue:
    """List the jobs of the user, newest first."""
    page = jobs_of_user(current_user.id, requested_page())
    return render_template("jobs/index.html", page=page)


@bp.get("/<task_id>/card")
@login_required
def card(task_id: str) -> ResponseReturnValue:
    """Return the HTML fragment of a job in its current state, with which an open page replaces the job's card."""
    return render_template("jobs/_card.html", job=_own_job(task_id))


@bp.post("/<task_id>/cancel")
@login_required
def cancel(task_id: str) -> ResponseReturnValue:
    """Request the cancellation of a job."""
    try:
        cancel_job(_own_job(task_id))
    except InvalidJobState as error:
        flash(str(error), "warning")
    return _back()


@bp.post("/<task_id>/retry")
@login_required
@limit_launches()
def retry(task_id: str) -> ResponseReturnValue:
    """Retry a job that failed or was cancelled, as a new job."""
    try:
        retry_job(_own_job(task_id))
        db.session.commit()
    except InvalidJobState as error:
        flash(str(error), "warning")
    except AlreadyRunning:
        db.session.rollback()
        flash(_("A job of this kind is already running."), "warning")
    return _back()


def _own_job(step_id: str) -> Job:
    job = find_job(step_id, current_user.id)
    if job is None:
        abort(404, _("There is no such task."))
    return job


def _back() -> ResponseReturnValue:
    return redirect(referring_path() or url_for("tasks.index"))
