"""Rendering of notifications in the reader's language, when they are shown.

A package registers a function for each of its kinds ::

    @renders("follower")
    def render_follower_notifications(rows: list[Notification]) -> dict[int, RenderedNotification]: ...
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import NamedTuple

from microblog.notifications.models import Notification


class RenderedNotification(NamedTuple):
    """A sentence, and the address of the page that it is about."""

    sentence: str
    address: str


Renderer = Callable[[list[Notification]], dict[int, RenderedNotification]]

_renderers: dict[str, Renderer] = {}


def renders(name: str) -> Callable[[Renderer], Renderer]:
    """Register the function that tells rows of the kind `name`, by their ids; it leaves out what is gone.

    It gets at least one row, all of one user.
    """

    def register(teller: Renderer) -> Renderer:
        _renderers[name] = teller
        return teller

    return register


def has_renderer(name: str) -> bool:
    """Return whether a renderer is registered for this kind."""
    return name in _renderers


def render_notifications(rows: Iterable[Notification]) -> dict[int, RenderedNotification]:
    """Return the rendered `rows` by id, without rows of kinds that have no renderer any longer."""
    by_kind: defaultdict[str, list[Notification]] = defaultdict(list)
    for row in rows:
        by_kind[row.name].append(row)
    sentences: dict[int, RenderedNotification] = {}
    for name, of_kind in by_kind.items():
        if has_renderer(name):
            sentences |= _renderers[name](of_kind)
    return sentences
