"""Find posts: the database returns candidates, which are ranked here.

At most MAX_CANDIDATES posts are ranked: the newest written here, then the newest imported. For common and rare words
the databases find these without reading other matches; in between, PostgreSQL reads all matches of a word (at most the
square root of MAX_CANDIDATES × posts, if they are distributed evenly). For common words that rarely occur together, the
index is read to its end; a limit would make rare combinations impossible to find.

Ranking in Python gives the same order on both databases and needs no document frequencies, whose cost grows with the
number of posts.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import NamedTuple

import sqlalchemy as sa
from markupsafe import Markup
from sqlalchemy.dialects.postgresql import TSQUERY

from microblog import pagination
from microblog.extensions import db
from microblog.pagination import FIRST_PAGE, InvalidKey, KeysetOrder, Page, PageRequest
from microblog.posts.models import Post
from microblog.posts.queries import all_posts
from microblog.posts.tokenizer import indexed
from microblog.search.query import Query
from microblog.validators import MAX_ID

MAX_CANDIDATES = 500  # maximum number of matching posts that are ranked

_KEY = re.compile(r"(\d{1,3})_(-?\d{1,18})_(\d{1,18})", re.ASCII)
_EPOCH, _MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
_POST_FTS = sa.table("post_fts", sa.column("rowid", sa.Integer), sa.column("post_fts", sa.Text))


@dataclass(frozen=True, slots=True)
class SearchResult:
    """A page of posts, best first; `highlight` marks the matches in a text; `more` is True if others may be missing."""

    page: Page[Post]
    highlight: Callable[[str], Markup]
    more: bool


class _Rank(NamedTuple):
    """The rank of a post, which is also its paging key. Posts with equal scores are ordered newest first."""

    score: int
    microseconds: int  # since 1970
    id: int

    def __str__(self) -> str:
        return f"{self.score}_{self.microseconds}_{self.id}"


def find(query: Query, page_request: PageRequest = FIRST_PAGE) -> SearchResult:
    """Return a page of the posts that match `query`, best first. Raises pagination.InvalidKey."""

    @cache  # a page that is not full is read twice, an invalid key costs no search
    def ranks() -> list[_Rank]:
        score = query.scorer()
        return sorted(_rank(score(indexed(row.body)), row) for row in _candidates(query))

    def read(edge: _Rank | None, upward: bool, rows: int) -> list[_Rank]:
        if upward:
            return [rank for rank in ranks() if edge is None or rank > edge][:rows]
        return [rank for rank in reversed(ranks()) if edge is None or rank < edge][:rows]

    page = pagination.page_of(read, _BY_RANK, page_request)
    posts = Page(_load([rank.id for rank in page.items]), page.next, page.previous)
    return SearchResult(posts, query.highlight, len(ranks()) >= MAX_CANDIDATES)


def _candidates(query: Query) -> list[sa.Row[int, datetime, str]]:
    """Return posts with the words as typed; if these are too few, also with words that begin with the last one."""
    found = _newest(query)
    if query.prefix_allowed and len(found) < MAX_CANDIDATES:
        found_ids = {row.id for row in found}
        found += [row for row in _newest(query.unfinished()) if row.id not in found_ids]
    return found[:MAX_CANDIDATES]


def _newest(query: Query) -> list[sa.Row[int, datetime, str]]:
    columns = all_posts().with_only_columns(Post.id, Post.timestamp, Post.body)
    if db.engine.dialect.name == "postgresql":
        # Part of the statement, not a parameter: the planner selects the index by the frequency of the words.
        text = sa.bindparam(None, query.for_tsquery(), sa.Text, literal_execute=True)
        select = columns.where(Post.terms.op("@@")(sa.cast(text, TSQUERY))).order_by(Post.imported, Post.id.desc())
    else:
        found = _POST_FTS.c.post_fts.op("MATCH")(query.for_fts5())
        select = columns.join(_POST_FTS, _POST_FTS.c.rowid.op("&")(MAX_ID) == Post.id).where(found)
        select = select.order_by(_POST_FTS.c.rowid.desc())
    return list(db.session.execute(select.limit(MAX_CANDIDATES)))


def _rank(score: int, row: sa.Row[int, datetime, str]) -> _Rank:
    return _Rank(score, (row.timestamp - _EPOCH) // _MICROSECOND, row.id)


def _load(ids: list[int]) -> list[Post]:
    """Return the posts with these ids, in this order, except those that are no longer visible."""
    posts = {post.id: post for post in db.session.scalars(all_posts().where(Post.id.in_(ids)))}
    return [posts[post_id] for post_id in ids if post_id in posts]


def _parse(key: str) -> _Rank:
    match = _KEY.fullmatch(key)
    if match is None:
        raise InvalidKey
    return _Rank(*map(int, match.groups()))


_BY_RANK: KeysetOrder[_Rank] = KeysetOrder(str, _parse)
