"""The page /account/tokens, where users list, create and revoke their API tokens."""

from __future__ import annotations

from datetime import timedelta

from flask import Blueprint, abort, current_app, flash, redirect, render_template, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext as _
from flask_babel import lazy_gettext as _l
from flask_login import current_user, login_required
from flask_wtf import FlaskForm
from wtforms import StringField
from wtforms.validators import InputRequired, Length

from microblog.api.models import MAX_TOKEN_NAME, AccountChanged, ApiToken, TooManyTokens
from microblog.extensions import db, login
from microblog.pagination import requested_page
from microblog.rate_limits import limit_user
from microblog.validators import Storable

bp = Blueprint("account_tokens", __name__, url_prefix="/account/tokens")


class TokenForm(FlaskForm):
    """Form that creates a token."""

    name = StringField(
        _l("Name of a new token"),
        [
            InputRequired(_l("Give it a name, so that you know it again.")),
            Storable(),
            Length(max=MAX_TOKEN_NAME, message=_l("This has at most %(max)d characters.")),
        ],
        description=_l("What it is for, such as “backup script”."),
        render_kw={"autocomplete": "off"},
    )


@bp.get("")
@login_required
def index() -> ResponseReturnValue:
    """List the user's tokens, with a form that creates one."""
    return _page(TokenForm())


@bp.post("")
@login_required
@limit_user("RATELIMIT_SIGN_IN")
def create() -> ResponseReturnValue:
    """Create a token and show it once: only on this page, not in a cookie, which a redirect would need."""
    form = TokenForm()
    if not form.validate_on_submit():
        return _page(form), 422
    lifetime = timedelta(seconds=current_app.config["API_TOKEN_LIFETIME"])
    try:
        token, _row = ApiToken.issue(current_user, lifetime, form.name.data.strip())
    except AccountChanged:
        ended: ResponseReturnValue = login.unauthorized()  # as for any session that a password change has ended
        return ended
    except TooManyTokens as error:
        form.name.errors = [str(error)]
        return _page(form), 422
    db.session.commit()
    return _page(TokenForm(formdata=None), token), 201


@bp.post("/<int:token_id>/revoke")
@login_required
def revoke(token_id: int) -> ResponseReturnValue:
    """Revoke a token, immediately and permanently."""
    if not ApiToken.revoke(current_user, token_id):
        abort(404, _("You have no such token."))
    flash(_("The token is revoked: whatever used it is locked out."), "success")
    return redirect(url_for(".index"))


def _page(form: TokenForm, token: str | None = None) -> str:
    page = ApiToken.page_of(current_user, requested_page())
    return render_template("api/tokens.html", form=form, page=page, token=token)
