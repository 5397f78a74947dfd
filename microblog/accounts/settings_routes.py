"""Pages of /account: password, email address, deletion."""

from __future__ import annotations

from flask import Blueprint, flash, make_response, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext as _
from flask_login import COOKIE_NAME, current_user, login_required, login_user, logout_user

from microblog.accounts import deletion, email_change, tokens
from microblog.accounts.email_change import EmailTaken
from microblog.accounts.emails import link_lifetime
from microblog.accounts.forms import ChangeEmailForm, ChangePasswordForm, DeleteAccountForm
from microblog.accounts.models import EmailChange, User
from microblog.accounts.services import replace_password
from microblog.extensions import db
from microblog.rate_limits import limit_link_emails, limit_password_attempts
from microblog.security import LinkExpired, LinkInvalid
from microblog.taskqueue.errors import AlreadyRunning

bp = Blueprint("account", __name__, url_prefix="/account")


def _user_key() -> str:
    return f"user:{getattr(current_user, 'id', None)}"


@bp.get("")
@login_required
def overview() -> ResponseReturnValue:
    """Show the account's settings."""
    return render_template("accounts/account.html", waiting=email_change.pending_email_change(current_user))


@bp.route("/password", methods=["GET", "POST"])
@login_required
@limit_password_attempts()
def change_password() -> ResponseReturnValue:
    """Change the password; only this browser stays signed in."""
    form = ChangePasswordForm()
    if form.validate_on_submit():
        user: User = current_user._get_current_object()
        if replace_password(user, form.password.data):
            login_user(user, remember=COOKIE_NAME in request.cookies)
            flash(_("Your new password is set. Wherever else you were signed in, you no longer are."), "success")
        else:
            flash(_("Your password was changed elsewhere in this very moment. Sign in with the new one."), "warning")
        return redirect(url_for("account.overview"))
    return render_template("accounts/change_password.html", form=form), 422 if form.is_submitted() else 200


@bp.route("/email", methods=["GET", "POST"])
@login_required
@limit_password_attempts()
@limit_link_emails(_user_key)
def change_address() -> ResponseReturnValue:
    """Request another email address; a link mailed to it confirms the change."""
    form = ChangeEmailForm()
    if not form.validate_on_submit():
        return render_template("accounts/change_address.html", form=form), 422 if form.is_submitted() else 200
    try:
        email_change.request_email_change(current_user._get_current_object(), form.email.data)
        db.session.commit()
    except AlreadyRunning:
        db.session.rollback()
        flash(_("The link that you asked for before is still on its way. Cancel that, or wait for it."), "warning")
        return redirect(url_for("tasks.index"))
    flash(_("A link is on its way to %(address)s. Your address changes when you open it.", address=form.email.data))
    return redirect(url_for("account.overview"))


@bp.route("/email/<path:token>", methods=["GET", "POST"])
@limit_password_attempts()
def confirm_address(token: str) -> ResponseReturnValue:
    """Confirm an address with the mailed link. It takes a POST, since mail programs open links in advance."""
    try:
        change = tokens.email_change_of_token(token)
    except LinkExpired:
        flash(_("This link is too old: it worked for %(time)s.", time=link_lifetime()), "danger")
        return redirect(url_for("account.change_address"))
    except LinkInvalid:
        return _reject_link()
    if request.method == "POST":
        return _confirm(change)
    page = make_response(render_template("accounts/confirm_address.html", change=change))
    page.headers["Cache-Control"] = "no-store"
    return page


def _confirm(change: EmailChange) -> ResponseReturnValue:
    address = change.new_address
    try:
        confirmed = email_change.confirm_email_change(change)
    except EmailTaken:
        flash(_("Somebody else has taken this address in the meantime. Choose another."), "danger")
        return redirect(url_for("account.change_address"))
    if not confirmed:
        return _reject_link()
    flash(_("Your mail address is now %(address)s.", address=address), "success")
    return redirect(url_for("account.overview"))


def _reject_link() -> ResponseReturnValue:
    flash(_("This link does not work, or no longer: it was used, or the account has changed since."), "danger")
    return redirect(url_for("account.overview"))


@bp.get("/delete")
@login_required
def before_deletion() -> ResponseReturnValue:
    """Explain the deletion of the account, and offer an export first."""
    return render_template("accounts/before_deletion.html")


@bp.route("/delete/confirm", methods=["GET", "POST"])
@login_required
@limit_password_attempts()
def delete() -> ResponseReturnValue:
    """Delete the account after checking the password and the username."""
    form = DeleteAccountForm()
    if not form.validate_on_submit():
        running = current_user.get_tasks_in_progress()
        page = render_template("accounts/delete.html", form=form, running=running)
        return page, 422 if form.is_submitted() else 200
    address = current_user.email
    deletion.close_account(current_user._get_current_object())
    logout_user()
    flash(
        _("Your account is closed, and everything in it is being deleted. A mail to %(to)s confirms it.", to=address),
        "success",
    )
    return redirect(url_for("accounts.login"))
