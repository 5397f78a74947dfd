"""Timelines: lists of posts, newest first."""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.orm import aliased, lazyload

from microblog import pagination
from microblog.accounts.models import Follow, User
from microblog.extensions import db
from microblog.pagination import FIRST_PAGE, Page, PageQuery, PageRequest
from microblog.posts.models import Post
from microblog.validators import MAX_ID

MIN_TIME, MAX_TIME = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)  # before and after all posts


def home_timeline(reader: User, page_request: PageRequest = FIRST_PAGE) -> Page[Post]:
    """Return a page of the posts by `reader` and the users they follow. Raises pagination.InvalidKey."""
    return _page(home_posts(reader.id), page_request)


def explore_timeline(page_request: PageRequest = FIRST_PAGE) -> Page[Post]:
    """Return a page of all posts. Raises pagination.InvalidKey."""
    return _page(all_posts(), page_request)


def profile_timeline(author: User, page_request: PageRequest = FIRST_PAGE) -> Page[Post]:
    """Return a page of the posts by `author`. Raises pagination.InvalidKey."""
    return _page(posts_by(author.id), page_request)


def find_post(post_id: int) -> Post | None:
    """Return the post with this id, which may be any integer, or None if there is none that is visible."""
    if not 0 < post_id <= MAX_ID:
        return None
    return db.session.scalar(all_posts().where(Post.id == post_id))


def all_posts() -> sa.Select[Post]:
    """Return a query for all posts, without those of authors whose account is being deleted."""
    return sa.select(Post).where(Post.user_id.not_in(User.ids_of_deleted()))


def posts_by(author_id: int) -> sa.Select[Post]:
    """Return a query for all posts by an author."""
    return sa.select(Post).where(Post.user_id == author_id)


def home_posts(reader_id: int) -> PageQuery[Post]:
    """Return a listing of the posts by a reader and the users they follow.

    The database reads at most one page of posts per author, however many posts there are: a page of the timeline
    cannot extend beyond the nearest of the ends of the authors' pages.
    """
    followed = sa.select(Follow.followed_id.label("id")).where(Follow.follower_id == reader_id)
    followed = followed.where(Follow.followed_id.not_in(User.ids_of_deleted()))
    authors = followed.union_all(sa.select(sa.literal(reader_id))).cte("authors")

    def candidates(edge: sa.Tuple | None, upward: bool, rows: int) -> sa.Select[Post]:
        post, last = aliased(Post), aliased(Post)
        of_author = sa.select(post.id).where(post.user_id == authors.c.id)
        reach = pagination.after_key(of_author, (post.timestamp, post.id), edge, upward).offset(rows - 1).limit(1)
        # Materialized separately: in a single query, the database would search all posts in time order.
        reached = _materialized(sa.select(reach.scalar_subquery().label("id")).select_from(authors), "reached")
        ends = _materialized(sa.select(last.timestamp, last.id).where(last.id.in_(sa.select(reached.c.id))), "ends")
        nearest = (
            pagination.after_key(sa.select(ends), (ends.c.timestamp, ends.c.id), None, upward).limit(1).cte("nearest")
        )
        bound = sa.tuple_(
            sa.func.coalesce(
                sa.select(nearest.c.timestamp).scalar_subquery(),
                sa.literal(MAX_TIME if upward else MIN_TIME, post.timestamp.type),
            ),
            sa.func.coalesce(sa.select(nearest.c.id).scalar_subquery(), MAX_ID if upward else 0),
        )
        key = sa.tuple_(Post.timestamp, Post.id)
        query = sa.select(Post).where(Post.user_id.in_(sa.select(authors.c.id)))
        return query.where(key <= bound if upward else key >= bound)

    return candidates


def _materialized(query: sa.SelectBase, name: str) -> sa.CTE:
    return query.cte(name).prefix_with("MATERIALIZED")


def posts_written_after(query: sa.Select[Post] | PageQuery[Post], since: datetime, limit: int) -> list[Post]:
    """Return the first `limit` posts of `query` that were written after `since`, oldest first."""
    edge = sa.tuple_(sa.literal(since, Post.timestamp.type), sa.literal(MAX_ID))
    found = query if isinstance(query, sa.Select) else query(edge, True, limit)
    ordered = pagination.after_key(found, (Post.timestamp, Post.id), edge, upward=True).limit(limit)
    return list(db.session.scalars(ordered.options(lazyload(Post.author))))


def _page(query: sa.Select[Post] | PageQuery[Post], page_request: PageRequest) -> Page[Post]:
    return pagination.newest_first(query, Post.timestamp, Post.id, page_request)
