"""Keeps the posts of a file, each at most once however often the file is imported.

A post is the same as another of its user's if it has the same time and text. If a file has two that are the same,
there were two in its source: of each kind the user has afterwards as many as the file has, or as there were before if
those were more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import InstrumentedAttribute

from microblog.extensions import db
from microblog.imports import refusals
from microblog.imports.formats import Draft
from microblog.imports.models import Upload
from microblog.posts.language import detect
from microblog.posts.models import Post
from microblog.posts.terms import indexed

ADVISORY_LOCK = 0x696D70  # of all that lock by number in this database, the imports

Numbered = tuple[Draft, int]  # a post, and the how-manieth of its kind in the file it is


def keep(upload_id: str, user_id: int, batch: Sequence[Numbered], refused: Sequence[dict[str, Any]] = ()) -> None:
    """Keep what is new of a user's `batch`, and commit that: one transaction that none of their imports comes between.

    What was `refused` beside it is noted with it. Raises LookupError if the upload, or its user, is gone.
    """
    # To find their languages and words takes longer than to write them: nobody else shall wait for that, too.
    found = {body: _found_in(body) for body in {draft.body for draft in _new(batch, user_id)}}
    _lock(upload_id, user_id)
    refusals.add(upload_id, refused)
    if new := _new(batch, user_id):
        rows = [
            {"body": body, "timestamp": timestamp, "user_id": user_id, "imported": True}
            | (found.get(body) or _found_in(body))
            for body, timestamp, _has_media in new
        ]
        db.session.execute(sa.insert(Post.__table__), rows)  # type: ignore[arg-type]
        _count(upload_id, user_id, len(new))
    db.session.commit()


def _new(batch: Sequence[Numbered], user_id: int) -> list[Draft]:
    """Those of `batch` that the user does not have."""
    known = _known([draft for draft, _number in batch], user_id)
    return [draft for draft, number in batch if not known or number > known[draft.body, draft.timestamp]]


def _found_in(body: str) -> dict[str, Any]:
    """The columns that come of a body, which would else be filled while the row is written (posts/columns.py)."""
    return {"language": detect(body), "terms": indexed(body)}


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
    times = [draft.timestamp for draft in drafts]
    between = sa.select(Post.id).where(Post.user_id == user_id, Post.timestamp.between(min(times), max(times)))
    if db.session.scalar(between.limit(1)) is None:  # as in an account that is empty, or imports in order
        return Counter()
    # Of thousands that share a moment, those with texts of the batch alone; two lists, which either database looks up
    # at once, while a list of pairs is compared one by one.
    same = _one_of(Post.timestamp, times), _one_of(Post.body, [draft.body for draft in drafts])
    alike = sa.select(Post.body, Post.timestamp, sa.func.count()).where(Post.user_id == user_id, *same)
    counted = db.session.execute(alike.group_by(Post.body, Post.timestamp))
    return Counter({(body, time): count for body, time, count in counted})


def _one_of(column: InstrumentedAttribute[Any], values: list[Any]) -> sa.ColumnElement[bool]:
    """Whether `column` has one of `values`: as many as a batch has posts, so that each batch is the same statement."""
    if db.engine.dialect.name == "postgresql":  # thousands of parameters take longer to be read than to be looked up
        return column == sa.any_(sa.cast(values, ARRAY(column.type)))
    return column.in_(values)
