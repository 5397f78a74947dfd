"""Password reset by a mailed link.

The response does not reveal whether an address has an account: every request causes the same work (one query, one
job, one message), and the worker decides whether to send a mail.
"""

from __future__ import annotations

import sqlalchemy as sa
from flask import Blueprint, Response, flash, make_response, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext as _
from flask_limiter import RequestLimit

from microblog.accounts import tokens
from microblog.accounts.emails import link_lifetime
from microblog.accounts.forms import NewPasswordForm, RequestLinkForm
from microblog.accounts.models import User
from microblog.accounts.services import replace_password
from microblog.extensions import db
from microblog.rate_limits import limit_link_emails, limit_password_attempts
from microblog.security import LinkExpired, LinkInvalid, fingerprint
from microblog.taskqueue.launch import launch_task
from microblog.taskqueue.models import Task
from microblog.validators import comparable_email

TASK = "email_password_reset"


def request_password_reset(address: str) -> None:
    """Launch the mail with a link to `address`, which is sent if it belongs to a user, and commit.

    The job belongs to the system: anyone may request a link, but must not be able to fill a user's list of jobs.
    """
    user = User.with_email(address)
    launch_task(TASK, _("Mailing a link to set a new password"), user.id if user else None)
    db.session.commit()


def is_reset_pending(user_id: int, task_id: str) -> bool:
    """Return whether an earlier task than `task_id` will mail a link to the same user, so that this one need not.

    The system may have several unfinished jobs of a kind, so this is checked by the task; the oldest sends the mail.
    """
    task = db.session.get(Task, task_id)
    if task is None:
        return False
    earlier = sa.tuple_(Task.created_at, Task.id) < (task.created_at, task.id)
    same_user = Task.signature[("args", 0)].as_integer() == user_id
    query = sa.select(Task.id).where(Task.unfinished, Task.name == TASK, earlier, same_user)
    return db.session.scalar(query.limit(1)) is not None


bp = Blueprint("reset", __name__, url_prefix="/auth")


def _address() -> str:
    """Return the rate limiter's key for the address in the form: a fingerprint, since it is stored in Redis."""
    return "address:" + fingerprint("rate-limit", comparable_email(request.form.get("email", "").strip()))


def _confirm_request(limit: RequestLimit | None = None) -> Response:
    """Return the same response with and without an account, and when the rate limit is exceeded."""
    flash(
        _(
            "If there is an account with this address, a mail with a link is on its way. The link works for %(time)s.",
            time=link_lifetime(),
        )
    )
    return make_response(redirect(url_for("accounts.login")))


@bp.route("/reset_password_request", methods=["GET", "POST"])
@limit_password_attempts()
@limit_link_emails(_address, _confirm_request)
def request_link() -> ResponseReturnValue:
    """Request a mail with a link to set a new password."""
    form = RequestLinkForm()
    if form.validate_on_submit():
        request_password_reset(form.email.data)
        return _confirm_request()
    return render_template("accounts/request_link.html", form=form), 422 if form.is_submitted() else 200


# A token has no slash. Text that a mail program adds to the link becomes part of the argument, and is not logged.
@bp.route("/reset_password/<path:token>", methods=["GET", "POST"])
@limit_password_attempts()
def set_password(token: str) -> ResponseReturnValue:
    """Set a new password with a mailed link."""
    try:
        user = tokens.user_of_reset_token(token)
    except (LinkExpired, LinkInvalid) as error:
        return _redirect_to_request(error)
    form = NewPasswordForm()
    if form.validate_on_submit():
        if not replace_password(user, form.password.data):
            return _redirect_to_request(LinkInvalid())
        flash(
            _("Your new password is set. Sign in with it; wherever you were signed in, you no longer are."), "success"
        )
        return redirect(url_for("accounts.login"))
    page = make_response(
        render_template("accounts/set_password.html", form=form, user=user), 422 if form.is_submitted() else 200
    )
    page.headers["Cache-Control"] = "no-store"
    return page


def _redirect_to_request(error: Exception) -> ResponseReturnValue:
    if isinstance(error, LinkExpired):
        flash(_("This link is too old: it worked for %(time)s.", time=link_lifetime()), "danger")
    else:
        flash(_("This link does not work, or no longer: it was used, or the account has changed since."), "danger")
    return redirect(url_for("reset.request_link"))
