"""Pages for reading, writing, deleting and translating posts."""

from __future__ import annotations

from typing import NoReturn
from urllib.parse import urlsplit

from flask import Blueprint, abort, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext as _
from flask_login import current_user, login_required

from microblog.accounts.services import count_follows, get_user_or_404, is_following
from microblog.i18n import language_tag
from microblog.pagination import Page, requested_page
from microblog.posts import translation
from microblog.posts.forms import PostForm
from microblog.posts.models import MAX_POST
from microblog.posts.queries import explore_timeline, find_post, home_timeline, profile_timeline
from microblog.posts.services import create_post, delete_post, get_own_post
from microblog.posts.translation import find_translation, translatable
from microblog.rate_limits import limit_user
from microblog.security import local_path, referring_path
from microblog.validators import ID_CONVERTER

bp = Blueprint("posts", __name__)


@bp.route("/", methods=["GET", "POST"])
@login_required
@limit_user("RATELIMIT_POST", methods=["POST"])
def home() -> ResponseReturnValue:
    """Show the posts of the current user and the users they follow, and write a post."""
    form = PostForm()
    if form.validate_on_submit():
        create_post(current_user.id, form.body)
        flash(_("Your post is live."), "success")
        return redirect(url_for("posts.home"))
    page = home_timeline(current_user, requested_page())
    status = 422 if form.is_submitted() else 200
    return render_template("posts/home.html", form=form, page=page, limit=MAX_POST), status


@bp.get("/explore")
@login_required
def explore() -> ResponseReturnValue:
    """Show posts of all users."""
    page = explore_timeline(requested_page())
    return render_template("posts/explore.html", page=page)


@bp.get("/user/<username>")
@login_required
def profile(username: str) -> ResponseReturnValue:
    """Show a user and their posts; a user's own profile also offers the export."""
    user = get_user_or_404(username)
    page = profile_timeline(user, requested_page())
    return render_template(
        "posts/profile.html",
        user=user,
        page=page,
        counts=count_follows(user),
        following=user != current_user and is_following(current_user, user),
    )


_ID = f"<{ID_CONVERTER}:post_id>"


@bp.get(f"/post/{_ID}")
@login_required
def post(post_id: int) -> ResponseReturnValue:
    """Show a post."""
    found = find_post(post_id) or _not_found()
    return render_template("posts/post.html", post=found, page=Page([found]))


@bp.get(f"/post/{_ID}/delete")
@login_required
def confirm_delete(post_id: int) -> ResponseReturnValue:
    """Ask for confirmation before deleting one's post, since following a link must not delete anything."""
    found = get_own_post(post_id, current_user.id) or _not_found()
    return render_template("posts/delete.html", post=found, next_path=referring_path())


@bp.post(f"/post/{_ID}/delete")
@login_required
def delete(post_id: int) -> ResponseReturnValue:
    """Delete one's post, and redirect to the list that contained it (``next``)."""
    if not delete_post(post_id, current_user.id):
        _not_found()
    flash(_("Your post is deleted."), "success")
    target = local_path(request.form.get("next")) or url_for("posts.home")
    deleted_paths = url_for("posts.post", post_id=post_id), url_for("posts.delete", post_id=post_id)
    return redirect(url_for("posts.home") if urlsplit(target).path in deleted_paths else target)


def _not_found() -> NoReturn:
    abort(404, _("There is no such post, or no longer."))


translation_bp = Blueprint("translation", __name__)
_TRANSLATION_RULE = f"/posts/{_ID}/translation"


@translation_bp.get(_TRANSLATION_RULE)
@login_required
def show(post_id: int) -> ResponseReturnValue:
    """Show a post with its translation into the language of the page, or with the button that requests it."""
    post = translatable(post_id)
    translated = find_translation(post_id, language_tag())
    return render_template("posts/translation.html", post=post, translation=translated)


@translation_bp.post(_TRANSLATION_RULE)
@login_required
@limit_user("RATELIMIT_TRANSLATE")
def translate(post_id: int) -> ResponseReturnValue:
    """Translate a post unless its translation is stored, and show it."""
    translation.translate(translatable(post_id))
    return redirect(url_for("translation.show", post_id=post_id))
