"""Number equal posts within a file, so that importing the file again does not duplicate them.

Posts with the same text and timestamp are numbered from 1 in the order of the file, which is the same in every import.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime

from microblog.imports.parsers import ParsedPost

MAX_TEXTS = 10_000  # different texts with one timestamp that are held in memory

#: Called with each post of a file in order; returns the post's number among equal posts, from 1.
Count = Callable[[ParsedPost], int]


class OutOfOrder(Exception):
    """The posts are not sorted by time, or too many share a timestamp, so that equal posts may be anywhere."""


def count_in_order() -> Count:
    """Return a counter for a file that is sorted by time, ascending or descending, so that equal posts are adjacent.

    It holds the texts of one timestamp, MAX_TEXTS at most. The counter raises OutOfOrder if the file is not sorted, or
    if a timestamp has more texts.
    """
    seen: Counter[str] = Counter()
    last: datetime | None = None
    upward: bool | None = None

    def count(post: ParsedPost) -> int:
        nonlocal last, upward
        if last is not None and post.timestamp != last:
            direction = post.timestamp > last
            if upward not in (None, direction):
                raise OutOfOrder
            upward = direction
            seen.clear()
        last = post.timestamp
        seen[post.body] += 1
        if len(seen) > MAX_TEXTS:
            raise OutOfOrder
        return seen[post.body]

    return count


@contextmanager
def count_anywhere() -> Iterator[Count]:
    """Provide a counter for a file in any order. It stores all posts in a temporary file, not in memory."""
    with closing(sqlite3.connect("", isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute("CREATE TABLE seen (key BLOB PRIMARY KEY, times INTEGER) WITHOUT ROWID")
        connection.execute("BEGIN")

        def count(post: ParsedPost) -> int:
            text = f"{post.timestamp.isoformat()} {post.body}"
            key = hashlib.blake2b(text.encode(), digest_size=16).digest()
            statement = (
                "INSERT INTO seen VALUES (?, 1) ON CONFLICT (key) DO UPDATE SET times = times + 1 RETURNING times"
            )
            [(times,)] = connection.execute(statement, (key,)).fetchall()
            return int(times)

        yield count
