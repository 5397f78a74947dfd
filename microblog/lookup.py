"""Rows by the number that somebody typed into an address."""

from __future__ import annotations

from typing import TypeVar

from microblog.extensions import db

T = TypeVar("T")

MAX_ID = 2**31 - 1  # what PostgreSQL's integer holds
ID_IN_ADDRESS = f"int(max={MAX_ID})"  # the converter of a route: anything else is not found


def by_id(model: type[T], identity: int) -> T | None:
    """The row of `model` with the number `identity`, or None.

    None also for a number that no row can have: PostgreSQL would refuse one that is too large, and SQLite one that
    is larger still.
    """
    return db.session.get(model, identity) if 0 < identity <= MAX_ID else None
