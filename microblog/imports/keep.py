"""Keeps the posts of a file, each at most once however often the file is imported.

A post is the same as another of its user's if it has the same time and text. If a file has two that are the same,
there were two in its source: of each kind the user has afterwards as many as the file has, or as there were before if
those were more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa

from microblog.extensions import db
from microblog.imports.formats import Draft
from microblog.imports.models import Upload
from microblog.posts.models import Post

ADVISORY_LOCK = 0x696D70  # of all that lock by number in this database, the imports

Numbered = tuple[Draft, int]  # a post, and the how-manieth of its kind in the file it is


def keep(upload_id: str, user_id: int, batch: Sequence[Numbered]) -> None:
    """Keep what is new of a user's `batch`, and commit that: one transaction that none of their imports comes between.

    Raises LookupError if the upload, or its user, is gone.
    """
    _lock(upload_id, user_id)
    known = _known([draft for draft, _number in batch], user_id)
    new = [draft for draft, number in batch if not known or number > known[draft.body, draft.timestamp]]
    if new:
        rows = [
            {"body": draft.body, "timestamp": draft.timestamp, "user_id": user_id, "imported": True} for draft in new
        ]
        db.session.execute(sa.insert(Post.__table__), rows)  # type: ignore[arg-type]
        _count(upload_id, user_id, len(new))
    db.session.commit()


def _lock(upload_id: str, user_id: int) -> None:
    """Let nobody else import for this user until the transaction ends.

    On SQLite whoever writes first keeps all others from writing, so that what is read after it is still so at the end.
    """
    _count(upload_id, user_id, 0)
    if db.engine.dialect.name == "postgresql":
        db.session.execute(sa.select(sa.func.pg_advisory_xact_lock(ADVISORY_LOCK, user_id)))


def _count(upload_id: str, user_id: int, new: int) -> None:
    own = sa.update(Upload).where(Upload.id == upload_id, Upload.user_id == user_id)
    counted = own.values(imported=Upload.imported + new).returning(Upload.id)
    if db.session.scalar(counted.execution_options(synchronize_session=False)) is None:
        db.session.rollback()
        raise LookupError(f"{upload_id} is gone")


def _known(drafts: Sequence[Draft], user_id: int) -> Counter[tuple[str, datetime]]:
    """How many posts the user has of each kind that `drafts` are of."""
    if not drafts:
        return Counter()
    times = {draft.timestamp for draft in drafts}
    between = sa.select(Post.id).where(Post.user_id == user_id, Post.timestamp.between(min(times), max(times)))
    if db.session.scalar(between.limit(1)) is None:  # as in an account that is empty, or imports in order
        return Counter()
    # Of thousands that share a moment, those with texts of the batch alone; two lists, which either database looks up
    # at once, while a list of pairs is compared one by one.
    alike = sa.select(Post.body, Post.timestamp, sa.func.count()).where(
        Post.user_id == user_id, Post.timestamp.in_(times), Post.body.in_({draft.body for draft in drafts})
    )
    counted = db.session.execute(alike.group_by(Post.body, Post.timestamp))
    return Counter({(body, time): count for body, time, count in counted})
