"""Find posts: the database returns candidates, which are ranked here.

At most CANDIDATES posts are ranked: those written here last, then those imported last. For common and for rare words
the databases find these without reading other matches; in between PostgreSQL reads all matches of a word (at most the
square root of CANDIDATES × posts, if they are distributed evenly). Common words that rarely occur together are
followed to the end of the index; a limit would make rare combinations impossible to find.

Ranking in Python is equal on both databases and needs no document frequencies, whose cost grows with the posts.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import sqlalchemy as sa
from flask import current_app
from markupsafe import Markup
from sqlalchemy.dialects.postgresql import TSQUERY

from microblog.extensions import db
from microblog.pagination import InvalidKey, Page
from microblog.posts.models import Post
from microblog.posts.queries import all_posts
from microblog.posts.tokenizer import indexed
from microblog.search.query import Query
from microblog.validators import MAX_ID

CANDIDATES = 500  # posts with the words of a search that are looked at

_KEY = re.compile(r"(\d{1,3})_(-?\d{1,18})_(\d{1,18})", re.ASCII)
_EPOCH, _MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
_POST_FTS = sa.table("post_fts", sa.column("rowid", sa.Integer), sa.column("post_fts", sa.Text))


@dataclass(frozen=True, slots=True)
class Found:
    """A page of posts, the best first; `highlight` shows what was found in one; `more` are left out if there are."""

    page: Page[Post]
    highlight: Callable[[str], Markup]
    more: bool


class _Place(NamedTuple):
    """The rank of a post and its key: among equals the newest comes first."""

    score: int
    microseconds: int  # since 1970
    id: int

    def __str__(self) -> str:
        return f"{self.score}_{self.microseconds}_{self.id}"


def find(query: Query, before: str | None = None, after: str | None = None, size: int | None = None) -> Found:
    """A page of the posts that `query` finds, behind the key `before` or in front of the key `after`.

    It has at most `size` posts, or ``POSTS_PER_PAGE``. Raises pagination.InvalidKey.
    """
    if before is not None and after is not None:
        raise InvalidKey
    edges = (None if before is None else _parse(before), None if after is None else _parse(after))
    candidates = _candidates(query)
    score = query.scorer()
    places = sorted((_place(score(indexed(row.body)), row) for row in candidates), reverse=True)
    page = _cut(places, *edges, size or current_app.config["POSTS_PER_PAGE"])
    return Found(page, query.highlight, len(candidates) >= CANDIDATES)


def _candidates(query: Query) -> list[sa.Row[int, datetime, str]]:
    """Return posts with the words as typed; if these are too few, also with words that begin with the last one."""
    found = _newest(query)
    if query.may_go_on and len(found) < CANDIDATES:
        known = {row.id for row in found}
        found += [row for row in _newest(query.unfinished()) if row.id not in known]
    return found[:CANDIDATES]


def _newest(query: Query) -> list[sa.Row[int, datetime, str]]:
    columns = all_posts().with_only_columns(Post.id, Post.timestamp, Post.body)
    if db.engine.dialect.name == "postgresql":
        # In the statement itself: how often a word occurs decides by which index its newest posts are found soonest.
        text = sa.bindparam(None, query.for_tsquery(), sa.Text, literal_execute=True)
        select = columns.where(Post.terms.op("@@")(sa.cast(text, TSQUERY))).order_by(Post.imported, Post.id.desc())
    else:
        found = _POST_FTS.c.post_fts.op("MATCH")(query.for_fts5())
        select = columns.join(_POST_FTS, _POST_FTS.c.rowid.op("&")(MAX_ID) == Post.id).where(found)
        select = select.order_by(_POST_FTS.c.rowid.desc())
    return list(db.session.execute(select.limit(CANDIDATES)))


def _place(score: int, row: sa.Row[int, datetime, str]) -> _Place:
    return _Place(score, (row.timestamp - _EPOCH) // _MICROSECOND, row.id)


def _cut(places: list[_Place], before: _Place | None, after: _Place | None, size: int) -> Page[Post]:
    """The page of `places` behind `before`, or in front of `after`, or the first."""
    first = 0
    if before is not None:
        first = sum(place >= before for place in places)
    elif after is not None:
        first = max(0, sum(place > after for place in places) - size)
    shown = places[first : first + size]
    older = str(shown[-1]) if first + size < len(places) else None
    newer = (str(shown[0]) if shown else str(before)) if first else None
    return Page(_load([place.id for place in shown]), older, newer)


def _load(ids: list[int]) -> list[Post]:
    """The posts with these ids, in this order; one that is gone meanwhile, or whose author is leaving, is left out."""
    posts = {post.id: post for post in db.session.scalars(all_posts().where(Post.id.in_(ids)))}
    return [posts[one] for one in ids if one in posts]


def _parse(key: str) -> _Place:
    match = _KEY.fullmatch(key)
    if match is None:
        raise InvalidKey
    return _Place(*map(int, match.groups()))
