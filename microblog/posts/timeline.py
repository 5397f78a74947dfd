"""The lists of posts, newest first."""

from __future__ import annotations

import sqlalchemy as sa
from flask import current_app

from microblog import paging
from microblog.accounts.models import User
from microblog.paging import Page
from microblog.posts.models import Post


def everyones_posts(before: str | None = None, after: str | None = None) -> Page[Post]:
    """A page of what anybody wrote; `before` and `after` are paging keys. Raises paging.InvalidKey."""
    return _page(sa.select(Post), before, after)


def posts_of(author: User, before: str | None = None, after: str | None = None) -> Page[Post]:
    """A page of what `author` wrote; `before` and `after` are paging keys. Raises paging.InvalidKey."""
    return _page(sa.select(Post).where(Post.user_id == author.id), before, after)


def _page(query: sa.Select[Post], before: str | None, after: str | None) -> Page[Post]:
    size = current_app.config["POSTS_PER_PAGE"]
    return paging.newest_first(query, Post.timestamp, Post.id, size, before, after)
