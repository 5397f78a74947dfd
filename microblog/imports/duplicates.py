"""Count equal posts within a file: the nth of its kind stays the nth, however often the file is imported."""

from __future__ import annotations

import hashlib
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime

from microblog.imports.parsers import Draft

MOST = 10_000  # different texts of one moment that are remembered in memory

#: Tells of each post of a file, in their order, the how-manieth of its kind it is, from 1.
Count = Callable[[Draft], int]


class OutOfOrder(Exception):
    """The file's posts are in no order of time, or very many are of one moment; equal ones may be anywhere."""


def count_in_order() -> Count:
    """A count for a file that is in order of time, either way, where equal posts are near to each other.

    It remembers one moment, up to MOST texts. Raises OutOfOrder, when called, where the file turns out to be in no
    order, or a moment to have more.
    """
    seen: Counter[str] = Counter()
    last: datetime | None = None
    upward: bool | None = None

    def count(draft: Draft) -> int:
        nonlocal last, upward
        if last is not None and draft.timestamp != last:
            direction = draft.timestamp > last
            if upward not in (None, direction):
                raise OutOfOrder
            upward = direction
            seen.clear()
        last = draft.timestamp
        seen[draft.body] += 1
        if len(seen) > MOST:
            raise OutOfOrder
        return seen[draft.body]

    return count


@contextmanager
def count_anywhere() -> Iterator[Count]:
    """A count for any file. It remembers all, in a temporary file, not in memory."""
    with closing(sqlite3.connect("", isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute("CREATE TABLE seen (key BLOB PRIMARY KEY, times INTEGER) WITHOUT ROWID")
        connection.execute("BEGIN")

        def count(draft: Draft) -> int:
            text = f"{draft.timestamp.isoformat()} {draft.body}"
            key = hashlib.blake2b(text.encode(), digest_size=16).digest()
            statement = (
                "INSERT INTO seen VALUES (?, 1) ON CONFLICT (key) DO UPDATE SET times = times + 1 RETURNING times"
            )
            [(times,)] = connection.execute(statement, (key,)).fetchall()
            return int(times)

        yield count
