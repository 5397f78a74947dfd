"""Rendering of notifications in the reader's language, when they are shown.

A package registers a function for each of its kinds ::

    @renders("follower")
    def render_follower_notifications(rows: list[Notification]) -> dict[int, RenderedNotification]: ...

It gets at least one row, all of one user, and returns them by id, without those about objects that no longer exist.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import NamedTuple

from flask import url_for
from flask_babel import LazyString

from microblog.notifications.models import Notification
from microblog.registry import Registry
from microblog.taskqueue import states


class RenderedNotification(NamedTuple):
    """A message, and the URL of the page that shows its subject."""

    message: str
    url: str


Renderer = Callable[[list[Notification]], dict[int, RenderedNotification]]

_renderers = Registry[Renderer]()
renders = _renderers.register


def renders_job_end(name: str, succeeded: LazyString, failed: LazyString) -> None:
    """Render the end of the jobs `name` as one of these messages, with a link to the jobs page, which has the details.

    Without a renderer the end of a job is not notified.
    """

    @renders(name)
    def render(rows: list[Notification]) -> dict[int, RenderedNotification]:
        messages = {row.id: succeeded if row.payload["state"] == states.SUCCESS else failed for row in rows}
        return {row_id: RenderedNotification(str(text), url_for("tasks.index")) for row_id, text in messages.items()}


def has_renderer(name: str) -> bool:
    """Return whether a renderer is registered for this kind."""
    return name in _renderers


def kinds() -> list[str]:
    """Return the kinds of notifications that have a renderer."""
    return list(_renderers)


def render_notifications(rows: Iterable[Notification]) -> dict[int, RenderedNotification]:
    """Return the rendered `rows` by id, without rows of kinds that no longer have a renderer."""
    by_kind: defaultdict[str, list[Notification]] = defaultdict(list)
    for row in rows:
        by_kind[row.name].append(row)
    rendered: dict[int, RenderedNotification] = {}
    for name, of_kind in by_kind.items():
        if has_renderer(name):
            rendered |= _renderers[name](of_kind)
    return rendered
