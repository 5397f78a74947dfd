"""What can be done with a post: it is written, and it may be deleted. Open pages hear of both."""

from __future__ import annotations

import sqlalchemy as sa

from microblog.extensions import db
from microblog.posts import live
from microblog.posts.models import Post


def write(author_id: int, body: str) -> Post:
    """Keep a new post, commit that, and tell open pages; `body` is as the form leaves it."""
    post = Post(body=body, user_id=author_id)
    db.session.add(post)
    db.session.commit()
    live.announce(post)
    return post


def own_post(post_id: int, author_id: int) -> Post | None:
    """A post, if it is this author's."""
    return db.session.scalar(sa.select(Post).where(Post.id == post_id, Post.user_id == author_id))


def delete(post_id: int, author_id: int) -> bool:
    """Delete an author's post, commit that, and tell open pages; False if it is not there, or somebody else's."""
    mine = sa.delete(Post).where(Post.id == post_id, Post.user_id == author_id)
    deleted = db.session.scalars(mine.returning(Post.id)).all()
    db.session.commit()
    if deleted:
        live.announce_deletion(post_id, author_id)
    return bool(deleted)
