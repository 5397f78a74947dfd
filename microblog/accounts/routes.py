"""Pages for signing up, signing in and out, editing the profile and following other users."""

from __future__ import annotations

from flask import Blueprint, abort, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext as _
from flask_login import current_user, login_required, login_user, logout_user
from werkzeug.wrappers import Response

from microblog.accounts import preferences
from microblog.accounts.decorators import limit_password_attempts, limit_sign_ins
from microblog.accounts.forms import ProfileForm, SignInForm, SignUpForm
from microblog.accounts.models import User
from microblog.accounts.services import (
    UserUnavailable,
    change_profile,
    count_follows,
    follow_user,
    followed_by,
    followers_of,
    get_user_or_404,
    is_following,
    sign_up,
    unfollow_user,
)
from microblog.notifications.pubsub import end_streams
from microblog.security import limit_user, local_path, referring_path

bp = Blueprint("accounts", __name__)


@bp.route("/auth/register", methods=["GET", "POST"])
@limit_password_attempts()
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
    if sign_up(form.username.data, form.email.data, form.password.data):
        return True
    if form.validate():  # then it was not about a name that is taken
        raise RuntimeError("a new account was refused by the database, though its name and address are free")
    return False


@bp.route("/auth/login", methods=["GET", "POST"])
@limit_sign_ins(lambda: request.form.get("username", ""))
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
    """Sign out; pages that are still open elsewhere in this browser fall silent."""
    user_id = current_user.id if current_user.is_authenticated else None
    logout_user()
    if user_id is not None:
        end_streams(user_id)
    flash(_("You are signed out."), "success")
    return redirect(url_for("accounts.login"))


@bp.route("/edit_profile", methods=["GET", "POST"])
@login_required
def edit_profile() -> ResponseReturnValue:
    """Change one's name, and what one tells of oneself."""
    form = ProfileForm(obj=current_user)
    if form.validate_on_submit() and _saved(form):
        preferences.apply_preferences(current_user)
        flash(_("Your profile is saved."), "success")
        return redirect(url_for("posts.profile", username=current_user.username))
    return render_template("accounts/edit_profile.html", form=form), 422 if form.is_submitted() else 200


def _saved(form: ProfileForm) -> bool:
    """Keep the profile; False, with a sentence in the form, if another took the name in this very moment."""
    preferences.store_preferences(current_user, form)
    if change_profile(current_user, username=form.username.data, about_me=form.about_me.data):
        return True
    if form.validate():  # then it was not about the name
        raise RuntimeError("a profile was refused by the database, though its name is free")
    return False


@bp.post("/follow/<username>")
@login_required
@limit_user("RATELIMIT_FOLLOW")
def follow(username: str) -> ResponseReturnValue:
    """Read what a user writes on one's home page from now on."""
    user = get_user_or_404(username)
    try:
        if user == current_user:
            flash(_("You cannot follow yourself; what you write is on your home page anyway."), "warning")
        elif follow_user(current_user, user):
            flash(_("You follow %(name)s now.", name=user.username), "success")
        else:
            flash(_("You follow %(name)s already.", name=user.username), "info")
    except UserUnavailable:
        abort(404, _("There is nobody of this name."))
    return _back_from(user)


@bp.post("/unfollow/<username>")
@login_required
@limit_user("RATELIMIT_FOLLOW")
def unfollow(username: str) -> ResponseReturnValue:
    """No longer read what a user writes on one's home page."""
    user = get_user_or_404(username)
    if unfollow_user(current_user, user):
        flash(_("You no longer follow %(name)s.", name=user.username), "success")
    else:
        flash(_("You do not follow %(name)s.", name=user.username), "info")
    return _back_from(user)


@bp.get("/user/<username>/followers")
@login_required
def followers(username: str) -> ResponseReturnValue:
    """List the followers of a user."""
    user = get_user_or_404(username)
    page = followers_of(user, request.args.get("before"), request.args.get("after"))
    return render_template(
        "accounts/people.html",
        user=user,
        page=page,
        people=[follow.follower for follow in page.items],
        title=_("Followers of %(name)s", name=user.username),
        nobody=_("Nobody yet."),
    )


@bp.get("/user/<username>/following")
@login_required
def following(username: str) -> ResponseReturnValue:
    """Whom a user follows."""
    user = get_user_or_404(username)
    page = followed_by(user, request.args.get("before"), request.args.get("after"))
    return render_template(
        "accounts/people.html",
        user=user,
        page=page,
        people=[follow.followed for follow in page.items],
        title=_("Followed by %(name)s", name=user.username),
        nobody=_("Nobody yet."),
    )


def _back_from(user: User) -> Response:
    return redirect(referring_path() or url_for("posts.profile", username=user.username))


def ask_to_sign_in() -> Response:
    """Redirect a reader who must sign in first, and who returns to the page afterwards."""
    if request.method != "GET" or request.path == "/":
        return redirect(url_for("accounts.login"))
    flash(_("Sign in to open this page."), "info")
    return redirect(url_for("accounts.login", next=request.full_path.removesuffix("?")))


@bp.get("/user/<username>/popup")
@login_required
def popup(username: str) -> ResponseReturnValue:
    """A user in a few words: a page, or with ``part=card`` the piece of HTML that an open page shows."""
    user = get_user_or_404(username)
    return render_template(
        "accounts/_card.html" if request.args.get("part") == "card" else "accounts/popup.html",
        user=user,
        counts=count_follows(user),
        following=user != current_user and is_following(current_user, user),
    )
