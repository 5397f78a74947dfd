"""The page of one post, and the way to delete it."""

from __future__ import annotations

from typing import NoReturn
from urllib.parse import urlsplit

from flask import abort, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext as _
from flask_login import current_user, login_required

from microblog.lookup import ID_IN_ADDRESS
from microblog.paging import Page
from microblog.posts import timeline, writing
from microblog.posts.routes import bp
from microblog.security import local_path, referring_path

_ID = f"<{ID_IN_ADDRESS}:post_id>"


@bp.get(f"/post/{_ID}")
@login_required
def post(post_id: int) -> ResponseReturnValue:
    """One post."""
    found = timeline.find(post_id) or _nothing()
    return render_template("posts/post.html", post=found, page=Page([found], older=None, newer=None))


@bp.get(f"/post/{_ID}/delete")
@login_required
def confirm_delete(post_id: int) -> ResponseReturnValue:
    """Ask whether one's post is to go, since following a link must not delete anything."""
    found = writing.own_post(post_id, current_user.id) or _nothing()
    return render_template("posts/delete.html", post=found, onward=referring_path())


@bp.post(f"/post/{_ID}/delete")
@login_required
def delete(post_id: int) -> ResponseReturnValue:
    """Delete one's post, and go back to the list that it was in (``next``)."""
    if not writing.delete(post_id, current_user.id):
        _nothing()
    flash(_("Your post is deleted."), "success")
    onward = local_path(request.form.get("next")) or url_for("posts.home")
    gone = url_for("posts.post", post_id=post_id), url_for("posts.delete", post_id=post_id)
    return redirect(url_for("posts.home") if urlsplit(onward).path in gone else onward)


def _nothing() -> NoReturn:
    abort(404, _("There is no such post, or no longer."))
