"""A reader asks for a post in their own language, on a page or by a program, and is told what is in the way."""

from __future__ import annotations

import logging

from flask import abort
from flask_babel import gettext as _

from microblog.locale import language_tag
from microblog.posts import timeline
from microblog.posts.models import Post
from microblog.posts.translation import is_translatable, once
from microblog.posts.translation.translator import ServiceAway, ServiceRefused

_log = logging.getLogger(__name__)


def translatable(post_id: int) -> Post:
    """The post of that number, if it can be translated for the reader. Raises NotFound."""
    post = timeline.find(post_id)
    if post is None or not is_translatable(post):
        abort(404, _("There is no such post, or none that can be translated."))
    return post


def translate(post: Post) -> None:
    """See to it that there is a translation of `post` into the reader's language.

    As once.translate(). Raises BadGateway and ServiceUnavailable.
    """
    try:
        once.translate(post, language_tag())
    except ServiceAway as error:
        _log.warning("translation service away: %s", error)
        abort(503, _("The translation service does not answer right now. Try again in a minute."))
    except ServiceRefused as error:
        _log.warning("translation service refused: %s", error)
        abort(502, _("The translation service could not translate this post."))
