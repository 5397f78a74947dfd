"""Keyset pagination of lists.

The key of an item is the text of the values by which the list is ordered; most lists are read newest first, by time and
id: ``2026-11-21T09:30:00.000000Z_42``. Nothing is counted or skipped, so that the thousandth page costs the same as the
first, and added rows do not move others between pages.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import sqlalchemy as sa
from flask import current_app, request
from flask_babel import gettext as _
from sqlalchemy.orm import InstrumentedAttribute
from werkzeug.exceptions import BadRequest

from microblog.extensions import db

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_TIME_KEY = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6})Z_([0-9A-Za-z-]{1,64})", re.ASCII)
_ID = re.compile(r"\d{1,18}", re.ASCII)  # fits the 64 bits of both databases


class InvalidKey(BadRequest):
    """The key of the requested page is invalid."""

    def __init__(self) -> None:
        super().__init__(_("This address names no page of the list. Start from its first page."))


class PageRequest(NamedTuple):
    """The page of a list to read: ``before`` a key or ``after`` one; without a key, the first.

    `size` is the maximum number of its items, by default ``POSTS_PER_PAGE``.
    """

    before: str | None = None
    after: str | None = None
    size: int | None = None

    def checked(self) -> tuple[str | None, str | None, int]:
        """Return `before`, `after` and the size. Raises InvalidKey if both keys are given."""
        if self.before is not None and self.after is not None:
            raise InvalidKey
        return self.before, self.after, self.size or current_app.config["POSTS_PER_PAGE"]


FIRST_PAGE = PageRequest()


def requested_page() -> PageRequest:
    """Return the page that the URL of the current request names."""
    return PageRequest(request.args.get("before"), request.args.get("after"))


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page in reading order, and the keys of the adjacent pages (None if there is no such page).

    In a URL a page is ``before`` a key or ``after`` one, whichever way the list is read: the next page is ``after`` the
    key `next` if the list is `ascending`, otherwise ``before`` it.
    """

    items: list[T]
    next: str | None = None
    previous: str | None = None
    ascending: bool = False


@dataclass(frozen=True, slots=True)
class KeysetOrder(Generic[T]):
    """The order of a list: the key of an item, and the reverse.

    `parse` returns an edge, the position of a key in the list, and raises InvalidKey.
    """

    key: Callable[[T], str]
    parse: Callable[[str], Any]
    ascending: bool = False


class PageQuery(Protocol[T_co]):
    """A query builder that restricts the rows to about one page."""

    def __call__(self, edge: sa.Tuple | None, upward: bool, rows: int) -> sa.Select[T_co]:
        """Select at least the next `rows` rows below `edge` (a time and an id), or the next above it if `upward`.

        Without an edge, start at the newest row. The select is unordered.
        """


def page_of(
    read: Callable[[Any, bool, int], Sequence[T]],
    order: KeysetOrder[T],
    page_request: PageRequest = FIRST_PAGE,
) -> Page[T]:
    """Return the requested page.

    `read` gets an edge or None, the direction (True if upward) and a number of rows, and returns at most that many: the
    nearest in this direction. Raises InvalidKey.
    """
    before, after, size = page_request.checked()
    start, end = (after, before) if order.ascending else (before, after)
    if end is not None:
        rows = read(order.parse(end), not order.ascending, size + 1)  # the one more shows that another page exists
        if len(rows) >= size:
            items = list(rows[:size][::-1])
            previous = order.key(items[0]) if len(rows) > size else None
            return Page(items, order.key(items[-1]), previous, order.ascending)
        # Near the beginning, return the full first page instead of a short one.
    rows = read(None if start is None else order.parse(start), order.ascending, size + 1)
    items = list(rows[:size])
    previous = None if start is None else order.key(items[0]) if items else start
    return Page(items, order.key(items[-1]) if len(rows) > size else None, previous, order.ascending)


def page_of_rows(
    query: sa.Select[T] | PageQuery[T],
    columns: Sequence[Any],
    order: KeysetOrder[T],
    page_request: PageRequest = FIRST_PAGE,
) -> Page[T]:
    """Like page_of(), for the rows of `query`, ordered by `columns`; the edge is a tuple of their values.

    `query` selects one entity, unordered, or builds such a select (see PageQuery).
    """

    def read(edge: sa.Tuple | None, upward: bool, rows: int) -> Sequence[T]:
        select = query if isinstance(query, sa.Select) else query(edge, upward, rows)
        return db.session.scalars(after_key(select, columns, edge, upward).limit(rows)).all()

    return page_of(read, order, page_request)


def newest_first(
    query: sa.Select[T] | PageQuery[T],
    timestamp: InstrumentedAttribute[datetime],
    identity: InstrumentedAttribute[Any],
    page_request: PageRequest = FIRST_PAGE,
) -> Page[T]:
    """Like page_of_rows(), newest row first.

    `timestamp` and `identity` (integer or text) are the columns that together identify and order the rows.
    """

    def key(item: T) -> str:
        return time_key(getattr(item, timestamp.key), getattr(item, identity.key))

    def parse(text: str) -> sa.Tuple:
        time, item_id = parse_time_key(text)
        text_id = identity.type.python_type is not int
        return sa.tuple_(
            sa.literal(time, timestamp.type), sa.literal(item_id, identity.type) if text_id else parse_id(item_id)
        )

    return page_of_rows(query, (timestamp, identity), KeysetOrder(key, parse), page_request)


def time_key(time: datetime, identity: object) -> str:
    """Return the key of a row with this time and id."""
    return f"{time.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='microseconds')}Z_{identity}"


def parse_time_key(text: str) -> tuple[datetime, str]:
    """Return the time and the id in a key. Raises InvalidKey."""
    match = _TIME_KEY.fullmatch(text)
    if match is None:
        raise InvalidKey
    try:
        return datetime.fromisoformat(match[1]).replace(tzinfo=UTC), match[2]
    except ValueError:
        raise InvalidKey from None


def parse_id(text: str) -> sa.BindParameter[int]:
    """Return the number in `text`, which may exceed the type of its column. Raises InvalidKey."""
    if _ID.fullmatch(text) is None:
        raise InvalidKey
    return sa.literal(int(text), sa.BigInteger())


def after_key(query: sa.Select[T], columns: Sequence[Any], edge: sa.Tuple | None, upward: bool) -> sa.Select[T]:
    """Return `query` restricted to the rows below `edge` and ordered downward, or above it and upward."""
    if edge is not None:
        key = sa.tuple_(*columns)
        query = query.where(key > edge if upward else key < edge)
    return query.order_by(*(column if upward else column.desc() for column in columns))
