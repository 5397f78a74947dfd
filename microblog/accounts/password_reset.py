"""Password reset by a mailed link.

The response does not reveal whether an address has an account: for every address the same happens (one query, one
job, one message), and the worker decides whether to send a mail.
"""

from __future__ import annotations

import sqlalchemy as sa
from flask import Blueprint, Response, flash, make_response, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext as _
from flask_limiter import RequestLimit

from microblog.accounts import tokens
from microblog.accounts.decorators import limit_link_emails, limit_password_attempts
from microblog.accounts.emails import link_lifetime
from microblog.accounts.forms import NewPasswordForm
from microblog.accounts.models import User
from microblog.accounts.services import replace_password
from microblog.accounts.settings_forms import RequestLinkForm
from microblog.extensions import db
from microblog.security import fingerprint
from microblog.taskqueue.launch import launch_task
from microblog.taskqueue.models import Task
from microblog.validators import comparable_email

TASK = "email_password_reset"


def request_password_reset(address: str) -> None:
    """Have a link mailed to `address` if it is some user's, and commit that.

    The job is the system's: anybody may ask, and the user's own list is not for anybody to fill.
    """
    user = User.with_email(address)
    launch_task(TASK, _("Mailing a link to set a new password"), user.id if user else None)
    db.session.commit()


def is_reset_pending(user_id: int, task_id: str) -> bool:
    """Return whether an earlier task than `task_id` is about to mail a link to the same user, and this one need not.

    Jobs of the system may be as many as you like, so it is looked at here; among several the oldest sends.
    """
    mine = db.session.get(Task, task_id)
    if mine is None:
        return False
    earlier = sa.tuple_(Task.created_at, Task.id) < (mine.created_at, mine.id)
    same_user = Task.signature[("args", 0)].as_integer() == user_id
    query = sa.select(Task.id).where(Task.unfinished, Task.name == TASK, earlier, same_user)
    return db.session.scalar(query.limit(1)) is not None


bp = Blueprint("reset", __name__, url_prefix="/auth")


def _address() -> str:
    """The address that is asked about, as the counter knows it: not in words, for it is kept in Redis."""
    return "address:" + fingerprint("rate-limit", comparable_email(request.form.get("email", "").strip()))


def _link_is_sent(limit: RequestLimit | None = None) -> Response:
    """The one answer there is: with an account or without, and when enough mails were asked for already."""
    flash(
        _(
            "If there is an account with this address, a mail with a link is on its way. The link works for %(time)s.",
            time=link_lifetime(),
        )
    )
    return make_response(redirect(url_for("accounts.login")))


@bp.route("/reset_password_request", methods=["GET", "POST"])
@limit_password_attempts()
@limit_link_emails(_address, _link_is_sent)
def request_link() -> ResponseReturnValue:
    """Have a link mailed that lets one set a new password."""
    form = RequestLinkForm()
    if form.validate_on_submit():
        request_password_reset(form.email.data)
        return _link_is_sent()
    return render_template("accounts/request_link.html", form=form), 422 if form.is_submitted() else 200


# A token has no slash; whatever a mail program adds to the link is part of the argument, and so stays out of the log.
@bp.route("/reset_password/<path:token>", methods=["GET", "POST"])
@limit_password_attempts()
def set_password(token: str) -> ResponseReturnValue:
    """Set a new password, with the link that was mailed."""
    try:
        user = tokens.user_of_reset_token(token)
    except (tokens.LinkExpired, tokens.LinkInvalid) as error:
        return _ask_again(error)
    form = NewPasswordForm()
    if form.validate_on_submit():
        if not replace_password(user, form.password.data):
            return _ask_again(tokens.LinkInvalid())
        flash(
            _("Your new password is set. Sign in with it; wherever you were signed in, you no longer are."), "success"
        )
        return redirect(url_for("accounts.login"))
    page = make_response(
        render_template("accounts/set_password.html", form=form, user=user), 422 if form.is_submitted() else 200
    )
    page.headers["Cache-Control"] = "no-store"
    return page


def _ask_again(error: Exception) -> ResponseReturnValue:
    if isinstance(error, tokens.LinkExpired):
        flash(_("This link is too old: it worked for %(time)s.", time=link_lifetime()), "danger")
    else:
        flash(_("This link does not work, or no longer: it was used, or the account has changed since."), "danger")
    return redirect(url_for("reset.request_link"))
