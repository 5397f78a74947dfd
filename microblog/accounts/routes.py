"""The pages to sign up, sign in and sign out, and a user's profile."""

from __future__ import annotations

from flask import Blueprint, abort, current_app, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext as _
from flask_login import current_user, login_required, login_user, logout_user
from sqlalchemy.exc import IntegrityError
from werkzeug.wrappers import Response

from microblog.accounts.forms import SignInForm, SignUpForm
from microblog.accounts.models import User
from microblog.extensions import db, limiter
from microblog.posts import timeline
from microblog.security import local_path

bp = Blueprint("accounts", __name__)


def _sign_in_limit() -> str:
    limit: str = current_app.config["RATELIMIT_SIGN_IN"]
    return limit


@bp.route("/auth/register", methods=["GET", "POST"])
@limiter.limit(_sign_in_limit, methods=["POST"])
def register() -> ResponseReturnValue:
    """Make an account."""
    if current_user.is_authenticated:
        return redirect(url_for("posts.home"))
    form = SignUpForm()
    if form.validate_on_submit() and _signed_up(form):
        flash(_("Welcome, %(name)s. Your account is ready: sign in.", name=form.username.data), "success")
        return redirect(url_for("accounts.login"))
    return render_template("accounts/register.html", form=form), 422 if form.is_submitted() else 200


def _signed_up(form: SignUpForm) -> bool:
    """Keep the new user; False, with a sentence in the form, if another took the name in this very moment."""
    user = User(username=form.username.data, email=form.email.data)
    user.set_password(form.password.data)
    db.session.add(user)
    try:
        db.session.commit()
    except IntegrityError:
        db.session.rollback()
        if form.validate():  # then it was not about a name that is taken
            raise
        return False
    return True


@bp.route("/auth/login", methods=["GET", "POST"])
@limiter.limit(_sign_in_limit, methods=["POST"])
def login() -> ResponseReturnValue:
    """Sign in, and go on to where the reader was heading."""
    onward = local_path(request.args.get("next")) or url_for("posts.home")
    if current_user.is_authenticated:
        return redirect(onward)
    form = SignInForm()
    if not form.validate_on_submit():
        return render_template("accounts/login.html", form=form), 422 if form.is_submitted() else 200
    user = User.with_credentials(form.username.data, form.password.data)
    if user is None:
        flash(_("The username or the password is wrong."), "danger")
        return render_template("accounts/login.html", form=form), 401
    login_user(user, remember=form.remember_me.data)
    return redirect(onward)


@bp.get("/auth/logout")
@login_required
def confirm_logout() -> ResponseReturnValue:
    """A button, since following a link must not sign anybody out."""
    return render_template("accounts/logout.html")


@bp.post("/auth/logout")
def logout() -> ResponseReturnValue:
    """Sign out."""
    logout_user()
    flash(_("You are signed out."), "success")
    return redirect(url_for("accounts.login"))


@bp.get("/user/<username>")
@login_required
def profile(username: str) -> ResponseReturnValue:
    """A user's posts; on one's own also the way to export them."""
    user = User.with_username(username) or abort(404, _("There is nobody of this name."))
    page = timeline.posts_of(user, request.args.get("before"), request.args.get("after"))
    return render_template("accounts/profile.html", user=user, page=page)


def ask_to_sign_in() -> Response:
    """Where a reader goes who asked for a page that needs an account; they come back to it afterwards."""
    if request.method != "GET" or request.path == "/":
        return redirect(url_for("accounts.login"))
    flash(_("Sign in to open this page."), "info")
    return redirect(url_for("accounts.login", next=request.full_path.removesuffix("?")))
