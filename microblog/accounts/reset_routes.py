"""The pages of somebody who has forgotten the password."""

from __future__ import annotations

from flask import Blueprint, Response, flash, make_response, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext as _
from flask_limiter import RequestLimit

from microblog.accounts import letters, links, passwords, reset
from microblog.accounts.account_forms import RequestLinkForm
from microblog.accounts.address import comparable
from microblog.accounts.fingerprint import fingerprint
from microblog.accounts.forms import NewPasswordForm
from microblog.accounts.limits import limit_guesses, limit_links

bp = Blueprint("reset", __name__, url_prefix="/auth")


def _address() -> str:
    """The address that is asked about, as the counter knows it: not in words, for it is kept in Redis."""
    return "address:" + fingerprint("rate-limit", comparable(request.form.get("email", "").strip()))


def _link_is_sent(limit: RequestLimit | None = None) -> Response:
    """The one answer there is: with an account or without, and when enough mails were asked for already."""
    flash(
        _(
            "If there is an account with this address, a mail with a link is on its way. The link works for %(time)s.",
            time=letters.lifetime_of_links(),
        )
    )
    return make_response(redirect(url_for("accounts.login")))


@bp.route("/reset_password_request", methods=["GET", "POST"])
@limit_guesses()
@limit_links(_address, _link_is_sent)
def request_link() -> ResponseReturnValue:
    """Have a link mailed that lets one set a new password."""
    form = RequestLinkForm()
    if form.validate_on_submit():
        reset.ask(form.email.data)
        return _link_is_sent()
    return render_template("accounts/request_link.html", form=form), 422 if form.is_submitted() else 200


# A token has no slash; whatever a mail program adds to the link is part of the argument, and so stays out of the log.
@bp.route("/reset_password/<path:token>", methods=["GET", "POST"])
@limit_guesses()
def set_password(token: str) -> ResponseReturnValue:
    """Set a new password, with the link that was mailed."""
    try:
        user = links.user_who_resets(token)
    except (links.LinkExpired, links.LinkDead) as error:
        return _ask_again(error)
    form = NewPasswordForm()
    if form.validate_on_submit():
        if not passwords.replace(user, form.password.data):
            return _ask_again(links.LinkDead())
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
    if isinstance(error, links.LinkExpired):
        flash(_("This link is too old: it worked for %(time)s.", time=letters.lifetime_of_links()), "danger")
    else:
        flash(_("This link does not work, or no longer: it was used, or the account has changed since."), "danger")
    return redirect(url_for("reset.request_link"))
