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
    """The page that was asked for is named by no key."""

    def __init__(self) -> None:
        super().__init__(_("This address names no page of the list. Start from its first page."))


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page, newest item first, and the keys of its neighbours (None where there is none)."""

    items: list[T]
    older: str | None
    newer: str | None


class Listing(Protocol[T_co]):
    """A list that can tell beforehand how far one page of it reaches."""

    def __call__(self, edge: sa.Tuple | None, upward: bool, rows: int) -> sa.Select[T_co]:
        """Select at least the first `rows` behind `edge` (a time and an id), towards newer ones if `upward`.

        Without an edge, from the newest. The select is unordered.
        """


def newest_first(
    query: sa.Select[T] | Listing[T],
    timestamp: InstrumentedAttribute[datetime],
    identity: InstrumentedAttribute[Any],
    size: int | None = None,
    before: str | None = None,
    after: str | None = None,
) -> Page[T]:
    """The page of `query` that begins `before` a key or ends `after` one; without either, the newest.

    `query` selects one entity, unordered, or makes such a select (see Listing); `timestamp` and `identity` (a number
    or a text) are columns of it that together name and order its rows. `size` is the greatest number of items, or
    ``POSTS_PER_PAGE``. Raises InvalidKey.
    """
    if before is not None and after is not None:
        raise InvalidKey
    listing = _Listing(query, timestamp, identity, size or current_app.config["POSTS_PER_PAGE"])
    return listing.from_top(before) if after is None else listing.up_from(after)


def after_key(query: sa.Select[T], timestamp: Any, identity: Any, edge: sa.Tuple | None, upward: bool) -> sa.Select[T]:
    """`query` from `edge` on, in the order of reading: the newest first, or the oldest first if `upward`."""
    if edge is not None:
        key = sa.tuple_(timestamp, identity)
        query = query.where(key > edge if upward else key < edge)
    return query.order_by(timestamp, identity) if upward else query.order_by(timestamp.desc(), identity.desc())


@dataclass(frozen=True)
class _Listing(Generic[T]):
    query: sa.Select[T] | Listing[T]
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
        if len(rows) < self.size:  # the top of the list is near: show it whole, not a page of two or three
            return self.from_top()
        items = rows[: self.size][::-1]
        newer = self._key(items[0]) if len(rows) > self.size else None
        return Page(items, self._key(items[-1]), newer)

    def _read(self, edge: sa.Tuple | None, *, upward: bool) -> list[T]:
        """One page and one row more, which tells whether there is another page; in the order of reading."""
        rows = self.size + 1
        query = self.query if isinstance(self.query, sa.Select) else self.query(edge, upward, rows)
        return list(db.session.scalars(after_key(query, self.timestamp, self.identity, edge, upward).limit(rows)))

    def _key(self, item: T) -> str:
        moment: datetime = getattr(item, self.timestamp.key)
        text = moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")
        return f"{text}Z_{getattr(item, self.identity.key)}"

    def _parse(self, key: str) -> sa.Tuple:
        match = _KEY.fullmatch(key)
        if match is None:
            raise InvalidKey
        moment, identity = match.groups()
        try:
            time = datetime.fromisoformat(moment).replace(tzinfo=UTC)
        except ValueError:
            raise InvalidKey from None
        return sa.tuple_(sa.literal(time, self.timestamp.type), self._identity(identity))

    def _identity(self, text: str) -> sa.BindParameter[Any]:
        if self.identity.type.python_type is not int:
            return sa.literal(text, self.identity.type)
        if _ID.fullmatch(text) is None:
            raise InvalidKey
        return sa.literal(int(text), sa.BigInteger())  # it may be greater than any id that there is
