"""Create and delete posts, and notify open pages of both; describe the progress of tasks that read posts."""

from __future__ import annotations

import sqlalchemy as sa

from microblog.extensions import db
from microblog.i18n import progress_text
from microblog.posts.events import announce_post, announce_post_deletion
from microblog.posts.models import Post


def create_post(author_id: int, body: str) -> Post:
    """Store a new post, commit, and notify open pages; `body` is that of a valid PostForm."""
    post = Post(body=body, user_id=author_id)
    db.session.add(post)
    db.session.commit()
    announce_post(post)
    return post


def get_own_post(post_id: int, author_id: int) -> Post | None:
    """Return a post if it belongs to this author, or None."""
    return db.session.scalar(sa.select(Post).where(Post.id == post_id, Post.user_id == author_id))


def delete_post(post_id: int, author_id: int) -> bool:
    """Delete an author's post, commit, and notify open pages. Return False if the author has no such post."""
    statement = sa.delete(Post).where(Post.id == post_id, Post.user_id == author_id)
    deleted = db.session.scalars(statement.returning(Post.id)).all()
    db.session.commit()
    if deleted:
        announce_post_deletion(post_id, author_id)
    return bool(deleted)


def describe_progress(current: int, total: int | None) -> str:
    """Return the progress of a task that reads `total` posts, as text for its user."""
    return progress_text("%(current)s of %(total)s post", "%(current)s of %(total)s posts", current, total)
