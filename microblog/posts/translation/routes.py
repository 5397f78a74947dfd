"""Request and show a translation."""

from __future__ import annotations

from flask import Blueprint, redirect, render_template, url_for
from flask.typing import ResponseReturnValue
from flask_login import login_required

from microblog.i18n import language_tag
from microblog.posts.translation import service
from microblog.posts.translation.service import find_translation, translatable
from microblog.rate_limits import limit_user
from microblog.validators import ID_CONVERTER

bp = Blueprint("translation", __name__)

URL_RULE = f"/posts/<{ID_CONVERTER}:post_id>/translation"


@bp.get(URL_RULE)
@login_required
def show(post_id: int) -> ResponseReturnValue:
    """Show a post with its translation into the language of the page, or with the button that requests it."""
    post = translatable(post_id)
    return render_template("posts/translation.html", post=post, translation=find_translation(post_id, language_tag()))


@bp.post(URL_RULE)
@login_required
@limit_user("RATELIMIT_TRANSLATE")
def translate(post_id: int) -> ResponseReturnValue:
    """Translate a post unless its translation is stored, and show it."""
    service.translate(translatable(post_id))
    return redirect(url_for("translation.show", post_id=post_id))
