"""The lists of posts, newest first."""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa
from flask import current_app
from sqlalchemy.orm import aliased

from microblog import paging
from microblog.accounts.models import Follow, User
from microblog.paging import Listing, Page
from microblog.posts.models import Post

FIRST, LAST = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)  # all posts are between


def home_of(reader: User, before: str | None = None, after: str | None = None) -> Page[Post]:
    """A page of what `reader` and those whom they follow wrote; `before` and `after` are paging keys.

    Raises paging.InvalidKey. However many posts there are, the database looks at no more of them than one page of
    each author: a page cannot reach further than the newest edge of these.
    """
    followed = sa.select(Follow.followed_id.label("id")).where(Follow.follower_id == reader.id)
    followed = followed.where(Follow.followed_id.not_in(User.ids_of_deleted()))
    authors = followed.union_all(sa.select(sa.literal(reader.id))).cte("authors")

    def may_be_shown(edge: sa.Tuple | None, upward: bool, rows: int) -> sa.Select[Post]:
        post = aliased(Post)
        of_author = sa.select(post.timestamp).where(post.user_id == authors.c.id)
        last = paging.behind(of_author, post.timestamp, post.id, edge, upward).offset(rows - 1).limit(1)
        nearest = sa.func.min if upward else sa.func.max
        reach = sa.select(nearest(last.scalar_subquery(), type_=post.timestamp.type)).select_from(authors)
        bound = sa.func.coalesce(reach.scalar_subquery(), sa.literal(LAST if upward else FIRST, post.timestamp.type))
        query = sa.select(Post).where(Post.user_id.in_(sa.select(authors.c.id)))
        return query.where(Post.timestamp <= bound if upward else Post.timestamp >= bound)

    return _page(may_be_shown, before, after)


def everyones_posts(before: str | None = None, after: str | None = None) -> Page[Post]:
    """A page of what anybody wrote; `before` and `after` are paging keys. Raises paging.InvalidKey."""
    return _page(sa.select(Post).where(Post.user_id.not_in(User.ids_of_deleted())), before, after)


def posts_of(author: User, before: str | None = None, after: str | None = None) -> Page[Post]:
    """A page of what `author` wrote; `before` and `after` are paging keys. Raises paging.InvalidKey."""
    return _page(sa.select(Post).where(Post.user_id == author.id), before, after)


def _page(query: sa.Select[Post] | Listing[Post], before: str | None, after: str | None) -> Page[Post]:
    size = current_app.config["POSTS_PER_PAGE"]
    return paging.newest_first(query, Post.timestamp, Post.id, size, before, after)
