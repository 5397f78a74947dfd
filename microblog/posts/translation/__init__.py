"""Translation of posts into the reader's language by the service at ``TRANSLATE_URL``."""

from __future__ import annotations

from babel import Locale, UnknownLocaleError
from flask import Flask, current_app
from flask_babel import get_locale

from microblog.i18n import language_tag
from microblog.posts.models import Post
from microblog.posts.translation.client import current_translator


def init_app(app: Flask) -> None:
    """Register the pages and the template functions."""
    from microblog.posts.translation import routes

    app.register_blueprint(routes.bp)
    app.jinja_env.globals.update(is_translatable=is_translatable, language_name=language_name)


def is_translatable(post: Post) -> bool:
    """Return whether `post` is in another language than the page, and the service can translate between them."""
    if not current_app.config["TRANSLATE_URL"] or post.language is None:
        return False
    target = language_tag()
    return _primary(post.language) != _primary(target) and current_translator().can(post.language, target)


def language_name(tag: str) -> str:
    """Return the name of the language `tag` (BCP 47) in the current language, or the tag if it is unknown."""
    try:
        return Locale.parse(tag, sep="-").get_display_name(get_locale()) or tag
    except (UnknownLocaleError, ValueError):
        return tag


def _primary(tag: str) -> str:
    return tag.partition("-")[0]
