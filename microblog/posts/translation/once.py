"""One question for each post and language, however many readers ask at once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import sqlalchemy as sa
from flask import current_app
from redis.exceptions import RedisError
from sqlalchemy.exc import IntegrityError

from microblog.extensions import db, redis_client
from microblog.posts.models import Post
from microblog.posts.translation.models import Translation
from microblog.posts.translation.translator import ServiceAway, current_translator

LOOK_EVERY = 0.05  # seconds between two looks whether another's question is answered


def find(post_id: int, language: str) -> str | None:
    """What the post says in `language`, if anybody has asked before; else None."""
    query = sa.select(Translation.body).where(Translation.post_id == post_id, Translation.language == language)
    return db.session.scalar(query)


def translate(post: Post, language: str) -> None:
    """See to it that there is a translation of `post`, whose own language is known, into `language`.

    It may take some seconds, in which no transaction is open: what the session holds is given up. Raises
    TranslationError, and then nothing is kept.
    """
    post_id, body, source = post.id, post.body, post.language or "auto"
    if find(post_id, language) is not None:
        return
    db.session.rollback()  # the connection is for others meanwhile
    with _one_at_a_time(post_id, language):
        if find(post_id, language) is not None:
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
