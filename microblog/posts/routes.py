"""The pages that posts are written and read on."""

from __future__ import annotations

from flask import Blueprint, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext as _
from flask_login import current_user, login_required

from microblog.accounts import followers
from microblog.accounts.directory import user_called
from microblog.limits import limit_user
from microblog.posts import timeline, writing
from microblog.posts.forms import PostForm
from microblog.posts.models import MAX_LENGTH

bp = Blueprint("posts", __name__)


@bp.route("/", methods=["GET", "POST"])
@login_required
@limit_user("RATELIMIT_POST", methods=["POST"])
def home() -> ResponseReturnValue:
    """Write a post, and read what you and those whom you follow wrote."""
    form = PostForm()
    if form.validate_on_submit():
        writing.write(current_user.id, form.body)
        flash(_("Your post is live."), "success")
        return redirect(url_for("posts.home"))
    page = timeline.home_of(current_user, request.args.get("before"), request.args.get("after"))
    status = 422 if form.is_submitted() else 200
    return render_template("posts/home.html", form=form, page=page, limit=MAX_LENGTH), status


@bp.get("/explore")
@login_required
def explore() -> ResponseReturnValue:
    """What everybody wrote."""
    page = timeline.everyones_posts(request.args.get("before"), request.args.get("after"))
    return render_template("posts/explore.html", page=page)


@bp.get("/user/<username>")
@login_required
def profile(username: str) -> ResponseReturnValue:
    """A user and what they wrote; on one's own also the way to export it."""
    user = user_called(username)
    page = timeline.posts_of(user, request.args.get("before"), request.args.get("after"))
    return render_template(
        "posts/profile.html",
        user=user,
        page=page,
        counts=followers.counts(user),
        following=user != current_user and followers.is_following(current_user, user),
    )
