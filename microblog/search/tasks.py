"""Tasks that keep the search index up to date."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from celery import shared_task
from flask_babel import lazy_gettext as _l

from microblog.database import DatabaseUnavailable
from microblog.extensions import db
from microblog.posts.services import describe_progress
from microblog.search import index
from microblog.taskqueue.errors import AlreadyRunning
from microblog.taskqueue.interface import Progress
from microblog.taskqueue.launch import launch_task
from microblog.taskqueue.models import Task
from microblog.taskqueue.worker import JobTask

ADVISORY_LOCK = 0x696478  # number of the PostgreSQL advisory lock for launching reindex_posts


def launch_reindexing() -> str:
    """Launch reindex_posts and commit. Return the job's id. Raises AlreadyRunning if another is unfinished.

    From the check to the commit no other process can launch one: on PostgreSQL because of the advisory lock, on SQLite
    because of the write lock.
    """
    if db.engine.dialect.name == "postgresql":
        db.session.execute(sa.select(sa.func.pg_advisory_xact_lock(ADVISORY_LOCK)))
    task_id = launch_task("reindex_posts", "").id
    others = sa.select(Task).where(Task.name == "reindex_posts", Task.unfinished, Task.id != task_id)
    if (running := db.session.scalar(others.limit(1))) is not None:
        db.session.expunge(running)
        db.session.rollback()
        raise AlreadyRunning(running)
    db.session.commit()
    return task_id


@shared_task(
    name="reindex_posts",
    bind=True,
    runnable=True,
    title=_l("Indexing all posts"),
    autoretry_for=(DatabaseUnavailable,),
    retry_backoff=2,
    retry_backoff_max=60,
    max_retries=8,
)
def reindex_posts(self: JobTask) -> dict[str, Any]:
    """Compare all posts with the search index, and repair it where it differs."""
    changed, total = 0, index.count_posts()
    db.session.rollback()  # progress is stored by the same connection
    with Progress(self, total, describe=describe_progress) as progress:
        for read, written in index.refresh():
            changed += written
            progress.advance(read)
        rebuilt = index.repair()
    return {"posts": progress.current, "changed": changed, "rebuilt": rebuilt}


@shared_task(name="index_posts", ignore_result=True, interval_setting="SEARCH_INTERVAL")
def index_posts() -> None:
    """Index the posts that were written without terms: by a migration, or directly in the database."""
    for _read, _written in index.refresh(only_missing=True):
        pass
