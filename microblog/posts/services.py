"""Create and delete posts, and announce both to open pages."""

from __future__ import annotations

import sqlalchemy as sa

from microblog.extensions import db
from microblog.posts.events import announce_post, announce_post_deletion
from microblog.posts.models import Post


def create_post(author_id: int, body: str) -> Post:
    """Keep a new post, commit that, and tell open pages; `body` is as the form leaves it."""
    post = Post(body=body, user_id=author_id)
    db.session.add(post)
    db.session.commit()
    announce_post(post)
    return post


def get_own_post(post_id: int, author_id: int) -> Post | None:
    """A post, if it is this author's."""
    return db.session.scalar(sa.select(Post).where(Post.id == post_id, Post.user_id == author_id))


def delete_post(post_id: int, author_id: int) -> bool:
    """Delete an author's post, commit that, and tell open pages; False if it is not there, or somebody else's."""
    mine = sa.delete(Post).where(Post.id == post_id, Post.user_id == author_id)
    deleted = db.session.scalars(mine.returning(Post.id)).all()
    db.session.commit()
    if deleted:
        announce_post_deletion(post_id, author_id)
    return bool(deleted)
