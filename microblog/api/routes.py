"""/account/tokens: the keys to one's account that programs have, where one sees, makes and revokes them."""

from __future__ import annotations

from datetime import timedelta

from flask import Blueprint, abort, current_app, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext as _
from flask_login import current_user, login_required

from microblog.api.forms import TokenForm
from microblog.api.models import AccountChanged, ApiToken, TooManyTokens
from microblog.extensions import db, login
from microblog.limits import limit_user

bp = Blueprint("account_tokens", __name__, url_prefix="/account/tokens")


@bp.get("")
@login_required
def index() -> ResponseReturnValue:
    """The reader's tokens, and a form to make one."""
    return _page(TokenForm())


@bp.post("")
@login_required
@limit_user("RATELIMIT_SIGN_IN")
def create() -> ResponseReturnValue:
    """Make a token, and show it, this once: it is on this page alone, not in a cookie that a redirect would need."""
    form = TokenForm()
    if not form.validate_on_submit():
        return _page(form), 422
    lifetime = timedelta(seconds=current_app.config["API_TOKEN_LIFETIME"])
    try:
        token, _row = ApiToken.issue(current_user, lifetime, form.name.data.strip())
    except AccountChanged:
        ended: ResponseReturnValue = login.unauthorized()  # as for every session that a new password has ended
        return ended
    except TooManyTokens as refused:
        form.name.errors = [str(refused)]
        return _page(form), 422
    db.session.commit()
    return _page(TokenForm(formdata=None), token), 201


@bp.post("/<int:token_id>/revoke")
@login_required
def revoke(token_id: int) -> ResponseReturnValue:
    """Make a token stop working, at once and for good."""
    if not ApiToken.revoke(current_user, token_id):
        abort(404, _("You have no such token."))
    flash(_("The token is revoked: whatever used it is locked out."), "success")
    return redirect(url_for(".index"))


def _page(form: TokenForm, token: str | None = None) -> str:
    page = ApiToken.page_of(current_user, None, request.args.get("before"), request.args.get("after"))
    return render_template("api/tokens.html", form=form, page=page, token=token)
