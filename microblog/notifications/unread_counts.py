"""Unread counts (badges) beside the navigation links.

A package registers a function ::

    @counts_unread("messages")
    def unread_message_count(user_id: int) -> int: ...
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from microblog.extensions import db
from microblog.registry import Registry

Counter = Callable[[int], int]

MAX_COUNT = 100  # counting stops here; the badge then shows “99+”

_counters = Registry[Counter]()
counts_unread = _counters.register


def counter_names() -> list[str]:
    """Return the names of all badges."""
    return list(_counters)


def unread_counts(user_id: int) -> dict[str, int]:
    """Return the count of each badge of a user, at most MAX_COUNT."""
    return {name: counter(user_id) for name, counter in _counters.items()}


def limited_count(query: sa.Select[Any]) -> int:
    """Return the number of rows of `query`, at most MAX_COUNT, so that the cost does not grow with the rows."""
    return db.session.scalar(sa.select(sa.func.count()).select_from(query.limit(MAX_COUNT).subquery())) or 0
