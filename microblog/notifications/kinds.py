"""How each kind of notification is told: in words of its reader's language, made when it is shown.

A room registers a function for each kind of its own when it is wired in, so that this one need not know it ::

    @kinds.tells("follower")
    def told_of_followers(rows: list[Notification]) -> dict[int, Told]: ...
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import NamedTuple

from microblog.notifications.models import Notification


class Told(NamedTuple):
    """A sentence, and the address of the page that it is about."""

    sentence: str
    address: str


Teller = Callable[[list[Notification]], dict[int, Told]]

_tellers: dict[str, Teller] = {}


def tells(name: str) -> Callable[[Teller], Teller]:
    """Register the function that tells rows of the kind `name`, by their ids; it leaves out what is gone.

    It gets at least one row, all of one user.
    """

    def register(teller: Teller) -> Teller:
        _tellers[name] = teller
        return teller

    return register


def is_told(name: str) -> bool:
    """Whether any room tells of this kind."""
    return name in _tellers


def told(rows: Iterable[Notification]) -> dict[int, Told]:
    """What to say of each of `rows`, by its id. Rows of kinds that nobody tells of any longer are left out."""
    by_kind: defaultdict[str, list[Notification]] = defaultdict(list)
    for row in rows:
        by_kind[row.name].append(row)
    sentences: dict[int, Told] = {}
    for name, of_kind in by_kind.items():
        if is_told(name):
            sentences |= _tellers[name](of_kind)
    return sentences
