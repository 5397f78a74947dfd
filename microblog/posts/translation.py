"""Translate a post into the reader's language: one request per post and language, however many readers request it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

import sqlalchemy as sa
from babel import Locale, UnknownLocaleError
from flask import abort, current_app
from flask_babel import get_locale
from flask_babel import gettext as _
from redis.exceptions import RedisError
from sqlalchemy.exc import IntegrityError

from microblog.extensions import db, redis_client
from microblog.i18n import language_tag
from microblog.posts.models import Post, Translation
from microblog.posts.queries import find_post
from microblog.posts.translator import TranslationRejected, TranslationUnavailable, current_translator

logger = logging.getLogger(__name__)

LOCK_POLL_INTERVAL = 0.05  # seconds between two attempts to get the lock of a concurrent request


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


def find_translation(post_id: int, language: str) -> str | None:
    """Return the stored translation of the post into `language`, or None."""
    query = sa.select(Translation.body).where(Translation.post_id == post_id, Translation.language == language)
    return db.session.scalar(query)


def translate_once(post: Post, language: str) -> None:
    """Ensure that a translation of `post`, whose own language is known, into `language` is stored.

    It may take some seconds, in which no transaction is open: the session is rolled back first. Raises
    TranslationError, and then nothing is stored.
    """
    post_id, body, source = post.id, post.body, post.language or "auto"
    if find_translation(post_id, language) is not None:
        return
    db.session.rollback()  # release the connection while waiting
    with _translation_lock(post_id, language):
        if find_translation(post_id, language) is not None:
            return
        db.session.rollback()
        translated = current_translator().translate(body, source, language)
        _store(Translation(post_id=post_id, language=language, body=translated))


@contextlib.contextmanager
def _translation_lock(post_id: int, language: str) -> Iterator[None]:
    """Wait for a concurrent request for the same translation. Without Redis both are sent, and one result is stored."""
    timeout = current_app.config["TRANSLATE_TIMEOUT"]
    # The lock expires if its holder dies, but not before the holder's request has ended.
    client = redis_client.connection
    key = client.key(f"translation:{post_id}:{language}")
    lock = client.lock(key, timeout=3 * timeout + 5, sleep=LOCK_POLL_INTERVAL, blocking_timeout=timeout)
    try:
        if not lock.acquire():
            raise TranslationUnavailable("a concurrent request for the same translation has not ended")
    except RedisError:
        lock = None
    try:
        yield
    finally:
        if lock is not None:
            with contextlib.suppress(RedisError):
                lock.release()


def _store(translation: Translation) -> None:
    db.session.add(translation)
    try:
        db.session.commit()
    except IntegrityError:  # a concurrent request has stored it, or the post was deleted
        db.session.rollback()


def translatable(post_id: int) -> Post:
    """Return the post with this id if it can be translated for the reader. Raises NotFound."""
    post = find_post(post_id)
    if post is None or not is_translatable(post):
        abort(404, _("There is no such post, or none that can be translated."))
    return post


def translate(post: Post) -> None:
    """Ensure that a translation of `post` into the reader's language is stored.

    See translate_once(). Raises BadGateway and ServiceUnavailable.
    """
    try:
        translate_once(post, language_tag())
    except TranslationUnavailable as error:
        logger.warning("the translation service is unavailable; the request fails with 503: %s", error)
        abort(503, _("The translation service does not answer right now. Try again in a minute."))
    except TranslationRejected as error:
        logger.warning("the translation service returned no translation; the request fails with 502: %s", error)
        abort(502, _("The translation service could not translate this post."))
