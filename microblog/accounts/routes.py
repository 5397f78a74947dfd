"""Pages for signing up, signing in and out, resetting the password, editing the profile and following other users."""

from __future__ import annotations

from flask import Blueprint, Response, abort, flash, make_response, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext as _
from flask_limiter import RequestLimit
from flask_login import current_user, login_required, login_user, logout_user

from microblog.accounts import preferences
from microblog.accounts.emails import link_lifetime
from microblog.accounts.forms import NewPasswordForm, ProfileForm, RequestLinkForm, SignInForm, SignUpForm
from microblog.accounts.models import Follow, User
from microblog.accounts.services import (
    UserUnavailable,
    change_profile,
    count_follows,
    follow_user,
    followed_by,
    followers_of,
    get_user_or_404,
    is_following,
    replace_password,
    request_password_reset,
    sign_up,
    unfollow_user,
)
from microblog.accounts.tokens import user_of_reset_token
from microblog.notifications.pubsub import end_streams
from microblog.pagination import Page, requested_page
from microblog.rate_limits import limit_link_emails, limit_password_attempts, limit_sign_ins, limit_user
from microblog.security import LinkExpired, LinkInvalid, fingerprint, local_path, referring_path
from microblog.validators import comparable_email

bp = Blueprint("accounts", __name__)


@bp.route("/auth/register", methods=["GET", "POST"])
@limit_password_attempts()
def register() -> ResponseReturnValue:
    """Create an account."""
    if current_user.is_authenticated:
        return redirect(url_for("posts.home"))
    form = SignUpForm()
    if form.validate_on_submit() and _create_account(form):
        flash(_("Welcome, %(name)s. Your account is ready: sign in.", name=form.username.data), "success")
        return redirect(url_for("accounts.login"))
    return render_template("accounts/register.html", form=form), 422 if form.is_submitted() else 200


def _create_account(form: SignUpForm) -> bool:
    """Store the new user. Return False, with an error in the form, if the name was taken in the meantime."""
    if sign_up(form.username.data, form.email.data, form.password.data):
        return True
    if form.validate():  # another constraint failed
        raise RuntimeError("the database refused a new account although its name and address are available")
    return False


@bp.route("/auth/login", methods=["GET", "POST"])
@limit_sign_ins(lambda: request.form.get("username", ""))
def login() -> ResponseReturnValue:
    """Sign in, and redirect to the page that was requested."""
    target = local_path(request.args.get("next")) or url_for("posts.home")
    if current_user.is_authenticated:
        return redirect(target)
    form = SignInForm()
    if not form.validate_on_submit():
        return render_template("accounts/login.html", form=form), 422 if form.is_submitted() else 200
    user = User.with_credentials(form.username.data, form.password.data)
    if user is None:
        flash(_("The username or the password is wrong."), "danger")
        return render_template("accounts/login.html", form=form), 401
    login_user(user, remember=form.remember_me.data)
    return redirect(target)


@bp.get("/auth/logout")
@login_required
def confirm_logout() -> ResponseReturnValue:
    """Show a button to sign out, since following a link must not sign a user out."""
    return render_template("accounts/logout.html")


@bp.post("/auth/logout")
def logout() -> ResponseReturnValue:
    """Sign out; other open pages in this browser receive no further updates."""
    user_id = current_user.id if current_user.is_authenticated else None
    logout_user()
    if user_id is not None:
        end_streams(user_id)
    flash(_("You are signed out."), "success")
    return redirect(url_for("accounts.login"))


@bp.route("/edit_profile", methods=["GET", "POST"])
@login_required
def edit_profile() -> ResponseReturnValue:
    """Edit the username, the description and the preferences."""
    form = ProfileForm(obj=current_user)
    if form.validate_on_submit() and _save_profile(form):
        preferences.apply_preferences(current_user)
        flash(_("Your profile is saved."), "success")
        return redirect(url_for("posts.profile", username=current_user.username))
    return render_template("accounts/edit_profile.html", form=form), 422 if form.is_submitted() else 200


def _save_profile(form: ProfileForm) -> bool:
    """Store the profile. Return False, with an error in the form, if the name was taken in the meantime."""
    preferences.store_preferences(current_user, form)
    if change_profile(current_user, username=form.username.data, about_me=form.about_me.data):
        return True
    if form.validate():  # another constraint failed
        raise RuntimeError("the database refused a profile although its name is available")
    return False


@bp.post("/follow/<username>")
@login_required
@limit_user("RATELIMIT_FOLLOW")
def follow(username: str) -> ResponseReturnValue:
    """Follow a user: their posts appear on the home page."""
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
    return _redirect_back(user)


@bp.post("/unfollow/<username>")
@login_required
@limit_user("RATELIMIT_FOLLOW")
def unfollow(username: str) -> ResponseReturnValue:
    """Stop following a user."""
    user = get_user_or_404(username)
    if unfollow_user(current_user, user):
        flash(_("You no longer follow %(name)s.", name=user.username), "success")
    else:
        flash(_("You do not follow %(name)s.", name=user.username), "info")
    return _redirect_back(user)


@bp.get("/user/<username>/followers")
@login_required
def followers(username: str) -> ResponseReturnValue:
    """List the followers of a user."""
    user = get_user_or_404(username)
    page = followers_of(user, requested_page())
    title = _("Followers of %(name)s", name=user.username)
    return _list_users(user, page, [follow.follower for follow in page.items], title)


@bp.get("/user/<username>/following")
@login_required
def following(username: str) -> ResponseReturnValue:
    """List the users whom a user follows."""
    user = get_user_or_404(username)
    page = followed_by(user, requested_page())
    title = _("Followed by %(name)s", name=user.username)
    return _list_users(user, page, [follow.followed for follow in page.items], title)


def _list_users(user: User, page: Page[Follow], users: list[User], title: str) -> str:
    return render_template("accounts/users.html", user=user, page=page, users=users, title=title)


def _redirect_back(user: User) -> ResponseReturnValue:
    return redirect(referring_path() or url_for("posts.profile", username=user.username))


def redirect_to_sign_in() -> ResponseReturnValue:
    """Redirect to the sign-in page, which leads back to the requested page if the request was a GET."""
    if request.method != "GET" or request.path == "/":
        return redirect(url_for("accounts.login"))
    flash(_("Sign in to open this page."), "info")
    return redirect(url_for("accounts.login", next=request.full_path.removesuffix("?")))


@bp.get("/user/<username>/popup")
@login_required
def user_card(username: str) -> ResponseReturnValue:
    """Show a short description of a user: a page, or with ``part=card`` the HTML fragment for an open page."""
    user = get_user_or_404(username)
    return render_template(
        "accounts/_user_card.html" if request.args.get("part") == "card" else "accounts/user_card.html",
        user=user,
        counts=count_follows(user),
        following=user != current_user and is_following(current_user, user),
    )


reset_bp = Blueprint("reset", __name__, url_prefix="/auth")


def _email_key() -> str:
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


@reset_bp.route("/reset_password_request", methods=["GET", "POST"])
@limit_password_attempts()
@limit_link_emails(_email_key, _confirm_request)
def request_link() -> ResponseReturnValue:
    """Request a mail with a link to set a new password.

    The response does not reveal whether an address has an account: every request causes the same work (one query, one
    job, one message), and the worker decides whether to send a mail.
    """
    form = RequestLinkForm()
    if form.validate_on_submit():
        request_password_reset(form.email.data)
        return _confirm_request()
    return render_template("accounts/request_link.html", form=form), 422 if form.is_submitted() else 200


# A token has no slash. Text that a mail program adds to the link becomes part of the argument, and is not logged.
@reset_bp.route("/reset_password/<path:token>", methods=["GET", "POST"])
@limit_password_attempts()
def set_password(token: str) -> ResponseReturnValue:
    """Set a new password with a mailed link."""
    try:
        user = user_of_reset_token(token)
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
