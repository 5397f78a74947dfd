"""Language and time zone: chosen in the profile; anonymous users choose the language with a button."""

from __future__ import annotations

from flask import Blueprint, Flask, abort, redirect, request, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext as _
from flask_login import user_loaded_from_cookie, user_logged_in

from microblog import i18n
from microblog.accounts.forms import PreferencesForm
from microblog.accounts.models import User
from microblog.security import referring_path

bp = Blueprint("preferences", __name__)


def init_app(app: Flask) -> None:
    """Register the language switch, and apply a user's preferences in each browser in which they sign in."""
    app.register_blueprint(bp)
    for signal in (user_logged_in, user_loaded_from_cookie):
        signal.connect(_apply_on_sign_in, sender=app)


@bp.post("/language")
def switch() -> ResponseReturnValue:
    """Change the language in this browser."""
    language = request.form.get("language", "")
    if language not in i18n.languages():
        abort(400, _("There is no such language here."))
    i18n.store_locale(language)
    return redirect(referring_path() or url_for("posts.home"))


def store_preferences(user: User, form: PreferencesForm) -> None:
    """Copy the values of `form` to the row of `user`; the caller commits."""
    user.locale = form.locale.data or None
    user.timezone = form.timezone.data or None


def apply_preferences(user: User) -> None:
    """Apply the new preferences of `user` to the rest of this request and to this browser."""
    i18n.use_locale_of(user)
    i18n.store_locale(user.locale)


def _apply_on_sign_in(sender: Flask, user: User) -> None:
    i18n.use_locale_of(user)
    if user.locale is not None:
        i18n.store_locale(user.locale)
