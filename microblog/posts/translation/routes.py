"""Ask for a translation, and read it."""

from __future__ import annotations

import logging

from flask import Blueprint, abort, redirect, render_template, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext as _
from flask_login import login_required

from microblog.limits import limit_user
from microblog.locale import language_tag
from microblog.lookup import ID_IN_ADDRESS
from microblog.posts import timeline
from microblog.posts.models import Post
from microblog.posts.translation import is_translatable, once
from microblog.posts.translation.translator import ServiceAway, ServiceRefused

bp = Blueprint("translation", __name__)

_log = logging.getLogger(__name__)

ADDRESS = f"/posts/<{ID_IN_ADDRESS}:post_id>/translation"


@bp.get(ADDRESS)
@login_required
def show(post_id: int) -> ResponseReturnValue:
    """A post beside its translation into the language of the page, or beside the button that asks for it."""
    post = _find(post_id)
    return render_template("posts/translation.html", post=post, translation=once.find(post_id, language_tag()))


@bp.post(ADDRESS)
@login_required
@limit_user("RATELIMIT_TRANSLATE")
def translate(post_id: int) -> ResponseReturnValue:
    """Have a post translated, unless it has been, and show it."""
    try:
        once.translate(_find(post_id), language_tag())
    except ServiceAway as error:
        _log.warning("translation service away: %s", error)
        abort(503, _("The translation service does not answer right now. Try again in a minute."))
    except ServiceRefused as error:
        _log.warning("translation service refused: %s", error)
        abort(502, _("The translation service could not translate this post."))
    return redirect(url_for("translation.show", post_id=post_id))


def _find(post_id: int) -> Post:
    post = timeline.find(post_id)
    if post is None or not is_translatable(post):
        abort(404, _("There is no such post, or none that can be translated."))
    return post
