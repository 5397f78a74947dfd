"""Maintenance of the search index: posts whose terms are missing or outdated.

A post gets its terms when it is written (posts/models.py), and the database updates its full-text index. Terms are
missing if the post was written in another way, and outdated after a change of the tokenizer. Posts are processed in
batches, each in its own transaction, while searches continue.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.exc import DatabaseError

from microblog.extensions import db
from microblog.posts.models import Post
from microblog.posts.tokenizer import indexed

BATCH = 1000  # posts
_CORRUPT = "SQLITE_CORRUPT_VTAB"


@dataclass(frozen=True, slots=True)
class IndexState:
    """The state of the index: how many of the `posts` have missing or wrong terms, and whether it is `whole`."""

    posts: int
    missing: int
    wrong: int
    whole: bool

    @property
    def consistent(self) -> bool:
        """Return whether the index is consistent with the posts."""
        return self.whole and not self.missing and not self.wrong


def count_posts() -> int:
    """Return the number of posts."""
    return db.session.scalar(sa.select(sa.func.count()).select_from(Post)) or 0


def check() -> IndexState:
    """Compare the index with the posts without changing anything. On SQLite, writers are blocked part of the time."""
    posts = missing = wrong = 0
    for batch in _batches(sa.select(Post.id, Post.body, Post.terms)):
        posts += len(batch)
        missing += sum(row.terms is None for row in batch)
        wrong += sum(row.terms not in (None, indexed(row.body)) for row in batch)
    return IndexState(posts, missing, wrong, _passes_integrity_check())


def refresh(*, only_missing: bool = False) -> Iterator[tuple[int, int]]:
    """Update the terms of all posts; yield the numbers of posts read and changed after each batch."""
    query = sa.select(Post.id, Post.body, Post.terms)
    for batch in _batches(query.where(Post.terms.is_(None)) if only_missing else query):
        terms = {row.id: indexed(row.body) for row in batch}
        changes = [
            {"post_id": row.id, "seen": row.body, "words": terms[row.id]} for row in batch if row.terms != terms[row.id]
        ]
        if changes:
            # A post that was edited since it was read already has new terms.
            unchanged = sa.and_(_POST.c.id == sa.bindparam("post_id"), _POST.c.body == sa.bindparam("seen"))
            update = sa.update(_POST).where(unchanged).values(terms=sa.bindparam("words", type_=_POST.c.terms.type))
            db.session.connection().execute(update, changes)
        db.session.commit()
        yield len(batch), len(changes)


def repair() -> bool:
    """Rebuild the database's full-text index if it is corrupt. Return whether it was.

    PostgreSQL's index is part of the table and needs no check. SQLite's is rebuilt in one transaction, which blocks
    other writers.
    """
    if _passes_integrity_check():
        return False
    db.session.execute(sa.text("INSERT INTO post_fts(post_fts) VALUES ('rebuild')"))
    db.session.commit()
    return True


_POST = sa.table("post", *(sa.column(column.name, column.type) for column in Post.__table__.columns))


def _batches(query: sa.Select[int, str, str | None]) -> Iterator[list[sa.Row[int, str, str | None]]]:
    last = 0
    while batch := list(db.session.execute(query.where(Post.id > last).order_by(Post.id).limit(BATCH))):
        db.session.rollback()  # no transaction is open while the caller works
        yield batch
        last = batch[-1].id
    db.session.rollback()


def _passes_integrity_check() -> bool:
    if db.engine.dialect.name == "postgresql":
        return True
    try:
        db.session.execute(sa.text("INSERT INTO post_fts(post_fts, rank) VALUES ('integrity-check', 1)"))
    except DatabaseError as error:
        if getattr(error.orig, "sqlite_errorname", "") != _CORRUPT:
            raise
        return False
    finally:
        db.session.rollback()
    return True
