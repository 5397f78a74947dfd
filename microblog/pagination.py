"""Keyset pagination of lists that are read newest first.

A key is the time and the id of a row: ``2026-11-21T09:30:00.000000Z_42``. Nothing is counted or skipped, so that the
thousandth page costs the same as the first, and added rows do not move others between pages.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, Protocol, TypeVar

import sqlalchemy as sa
from flask import current_app
from flask_babel import gettext as _
from sqlalchemy.orm import InstrumentedAttribute
from werkzeug.exceptions import BadRequest

from microblog.extensions import db

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_KEY = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6})Z_([0-9A-Za-z-]{1,64})", re.ASCII)
_ID = re.compile(r"\d{1,18}", re.ASCII)  # fits the 64 bits of both databases


class InvalidKey(BadRequest):
    """The key of the requested page is invalid."""

    def __init__(self) -> None:
        super().__init__(_("This address names no page of the list. Start from its first page."))


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page, newest item first, and the keys of the adjacent pages (None if there is no such page)."""

    items: list[T]
    older: str | None
    newer: str | None


class PageQuery(Protocol[T_co]):
    """A query builder that restricts the rows to about one page."""

    def __call__(self, edge: sa.Tuple | None, upward: bool, rows: int) -> sa.Select[T_co]:
        """Select at least the next `rows` rows after `edge` (a time and an id), or the next newer ones if `upward`.

        Without an edge, start at the newest row. The select is unordered.
        """


def newest_first(
    query: sa.Select[T] | PageQuery[T],
    timestamp: InstrumentedAttribute[datetime],
    identity: InstrumentedAttribute[Any],
    size: int | None = None,
    before: str | None = None,
    after: str | None = None,
) -> Page[T]:
    """Return the page of `query` that begins `before` a key or ends `after` one; without a key, the newest page.

    `query` selects one entity, unordered, or builds such a select (see PageQuery); `timestamp` and `identity` (integer
    or text) are its columns that together identify and order the rows. `size` is the maximum number of items, by
    default ``POSTS_PER_PAGE``. Raises InvalidKey.
    """
    if before is not None and after is not None:
        raise InvalidKey
    listing = _Listing(query, timestamp, identity, size or current_app.config["POSTS_PER_PAGE"])
    return listing.from_top(before) if after is None else listing.up_from(after)


def after_key(query: sa.Select[T], timestamp: Any, identity: Any, edge: sa.Tuple | None, upward: bool) -> sa.Select[T]:
    """Return `query` restricted to the rows after `edge` and ordered: newest first, or oldest first if `upward`."""
    if edge is not None:
        key = sa.tuple_(timestamp, identity)
        query = query.where(key > edge if upward else key < edge)
    return query.order_by(timestamp, identity) if upward else query.order_by(timestamp.desc(), identity.desc())


@dataclass(frozen=True)
class _Listing(Generic[T]):
    query: sa.Select[T] | PageQuery[T]
    timestamp: InstrumentedAttribute[datetime]
    identity: InstrumentedAttribute[Any]
    size: int

    def from_top(self, before: str | None = None) -> Page[T]:
        rows = self._read(None if before is None else self._parse(before), upward=False)
        items = rows[: self.size]
        older = self._key(items[-1]) if len(rows) > self.size else None
        if before is None:
            return Page(items, older, newer=None)
        return Page(items, older, newer=self._key(items[0]) if items else before)

    def up_from(self, after: str) -> Page[T]:
        rows = self._read(self._parse(after), upward=True)
        if len(rows) < self.size:  # near the top of the list, return the full first page instead of a short one
            return self.from_top()
        items = rows[: self.size][::-1]
        newer = self._key(items[0]) if len(rows) > self.size else None
        return Page(items, self._key(items[-1]), newer)

    def _read(self, edge: sa.Tuple | None, *, upward: bool) -> list[T]:
        """Return the rows of one page and one more, which shows that another page exists, in the order of the query."""
        rows = self.size + 1
        query = self.query if isinstance(self.query, sa.Select) else self.query(edge, upward, rows)
        return list(db.session.scalars(after_key(query, self.timestamp, self.identity, edge, upward).limit(rows)))

    def _key(self, item: T) -> str:
        time: datetime = getattr(item, self.timestamp.key)
        text = time.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")
        return f"{text}Z_{getattr(item, self.identity.key)}"

    def _parse(self, key: str) -> sa.Tuple:
        match = _KEY.fullmatch(key)
        if match is None:
            raise InvalidKey
        timestamp, identity = match.groups()
        try:
            time = datetime.fromisoformat(timestamp).replace(tzinfo=UTC)
        except ValueError:
            raise InvalidKey from None
        return sa.tuple_(sa.literal(time, self.timestamp.type), self._identity(identity))

    def _identity(self, text: str) -> sa.BindParameter[Any]:
        if self.identity.type.python_type is not int:
            return sa.literal(text, self.identity.type)
        if _ID.fullmatch(text) is None:
            raise InvalidKey
        return sa.literal(int(text), sa.BigInteger())  # a key may exceed the type of the column
