"""The archive: all posts of one user as JSON, oldest first, streamed to the storage as they are read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import sqlalchemy as sa
from flask import current_app

from microblog.exports.models import Archive
from microblog.extensions import db
from microblog.jobs import job_details
from microblog.jobs.job_details import Details
from microblog.jobs.models import Job
from microblog.posts.models import Post
from microblog.storage import Storage, open_storage

BATCH = 2000  # posts read and written at a time
FILE_NAME, CONTENT_TYPE = "posts.json", "application/json"


def archive_storage() -> Storage:
    """Return the storage at ``EXPORT_STORAGE_URL``."""
    return open_storage(current_app.config["EXPORT_STORAGE_URL"])


# Databases return times in UTC: PostgreSQL aware ones, SQLite naive ones.
_JSON = orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z


def count_posts(user_id: int) -> int:
    """Return the number of posts of the user."""
    return db.session.scalar(sa.select(sa.func.count()).where(Post.user_id == user_id)) or 0


def read_posts(user_id: int) -> Iterator[list[dict[str, Any]]]:
    """Yield the posts that the user has now, oldest first, in batches of at most BATCH; memory use does not grow.

    Each batch is read in a transaction of its own: a snapshot of all would keep a connection, and old rows from being
    removed, until the end. Posts written meanwhile are left out, and those deleted before their batch is read.
    """
    # The plain column type: the time needs no conversion between the database and JSON.
    timestamp = sa.type_coerce(Post.timestamp, sa.DateTime(timezone=True)).label("timestamp")
    newest = db.session.scalar(sa.select(sa.func.max(Post.id))) or 0
    query = sa.select(Post.id, Post.body, timestamp).where(Post.user_id == user_id).where(Post.id <= newest)
    query = query.order_by(Post.timestamp, Post.id).limit(BATCH)
    batch = query
    while rows := db.session.execute(batch).all():
        db.session.rollback()  # no transaction is open while the caller works
        yield [{"body": body, "timestamp": time} for _id, body, time in rows]
        batch = query.where(sa.tuple_(timestamp, Post.id) > (rows[-1].timestamp, rows[-1].id))
    db.session.rollback()


def to_json(batches: Iterator[list[dict[str, Any]]]) -> Iterator[bytes]:
    """Yield ``{"posts": [{"body": …, "timestamp": "…Z"}, …]}``, a batch at a time, with each post on its own line."""
    yield b'{"posts":['
    separator = b"\n"
    for batch in batches:
        posts = orjson.dumps(batch, option=_JSON)[1:-1]
        # This sequence only occurs between posts: quotes in a text are escaped, and a comma follows its closing quote.
        yield separator + posts.replace(b'},{"body":', b'},\n{"body":')
        separator = b",\n"
    yield b"\n]}\n"


@job_details.adds_job_details("archives")
def archives_of_job(job: Job) -> list[Details]:
    """Return the archive of `job`, if it exists; `path` is relative to the storage, `size` in bytes."""
    archive = db.session.get(Archive, job.id)
    if archive is None or not archive.sha256:
        return []
    columns = ("path", "size", "sha256", "posts", "created_at", "expires_at")
    return [{name: getattr(archive, name) for name in columns}]
