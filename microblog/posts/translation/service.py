"""Translate a post into the reader's language: one request per post and language, however many readers ask."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

import sqlalchemy as sa
from flask import abort, current_app
from flask_babel import gettext as _
from redis.exceptions import RedisError
from sqlalchemy.exc import IntegrityError

from microblog.extensions import db, redis_client
from microblog.i18n import language_tag
from microblog.posts.models import Post
from microblog.posts.queries import find_post
from microblog.posts.translation import is_translatable
from microblog.posts.translation.client import ServiceAway, ServiceRefused, current_translator
from microblog.posts.translation.models import Translation

LOOK_EVERY = 0.05  # seconds between two looks whether another's question is answered


def find_translation(post_id: int, language: str) -> str | None:
    """Return the stored translation of the post into `language`, or None."""
    query = sa.select(Translation.body).where(Translation.post_id == post_id, Translation.language == language)
    return db.session.scalar(query)


def translate_once(post: Post, language: str) -> None:
    """See to it that there is a translation of `post`, whose own language is known, into `language`.

    It may take some seconds, in which no transaction is open: what the session holds is given up. Raises
    TranslationError, and then nothing is kept.
    """
    post_id, body, source = post.id, post.body, post.language or "auto"
    if find_translation(post_id, language) is not None:
        return
    db.session.rollback()  # the connection is for others meanwhile
    with _one_at_a_time(post_id, language):
        if find_translation(post_id, language) is not None:
            return
        db.session.rollback()
        translated = current_translator().translate(body, source, language)
        _keep(Translation(post_id=post_id, language=language, body=translated))


@contextlib.contextmanager
def _one_at_a_time(post_id: int, language: str) -> Iterator[None]:
    """Wait for whoever is asking the same. While Redis is away everybody asks: the table keeps one answer."""
    patience = current_app.config["TRANSLATE_TIMEOUT"]
    # It expires by itself should its holder die, and not before the holder has its answer.
    lock = redis_client.connection.lock(
        f"translation:{post_id}:{language}", timeout=3 * patience + 5, sleep=LOOK_EVERY, blocking_timeout=patience
    )
    try:
        if not lock.acquire():
            raise ServiceAway("another's question has no answer yet")
    except RedisError:
        lock = None
    try:
        yield
    finally:
        if lock is not None:
            with contextlib.suppress(RedisError):
                lock.release()


def _keep(translation: Translation) -> None:
    db.session.add(translation)
    try:
        db.session.commit()
    except IntegrityError:  # another was as quick, or the post is gone
        db.session.rollback()


_log = logging.getLogger(__name__)


def translatable(post_id: int) -> Post:
    """The post of that number, if it can be translated for the reader. Raises NotFound."""
    post = find_post(post_id)
    if post is None or not is_translatable(post):
        abort(404, _("There is no such post, or none that can be translated."))
    return post


def translate(post: Post) -> None:
    """See to it that there is a translation of `post` into the reader's language.

    As translate_once(). Raises BadGateway and ServiceUnavailable.
    """
    try:
        translate_once(post, language_tag())
    except ServiceAway as error:
        _log.warning("translation service away: %s", error)
        abort(503, _("The translation service does not answer right now. Try again in a minute."))
    except ServiceRefused as error:
        _log.warning("translation service refused: %s", error)
        abort(502, _("The translation service could not translate this post."))
