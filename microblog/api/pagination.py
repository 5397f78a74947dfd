"""Paginated lists: items, `next`, `prev` and the Link header."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from flask import request, url_for

from microblog.pagination import Page

Answer = tuple[dict[str, Any], dict[str, str]]


def newest_first(query: Mapping[str, Any], page: Page[Any], items: Iterable[Any]) -> Answer:
    """Return body and headers of `page`, for a view decorated with Blueprint.lists().

    `query` is what the view was given; `items` are those of the page, as its schema takes them.
    """
    return listed(query, items, {"before": page.older}, {"after": page.newer})


def listed(
    query: Mapping[str, Any],
    items: Iterable[Any],
    following: Mapping[str, str | None],
    preceding: Mapping[str, str | None],
) -> Answer:
    """The same for a list in another order: `following` and `preceding` name its neighbours by their parameter.

    A parameter that is None says that there is no such page.
    """
    kept = {name: value for name, value in query.items() if name not in ("before", "after")}
    links = {"next": _path(kept, following), "prev": _path(kept, preceding)}
    header = ", ".join(f'<{path}>; rel="{relation}"' for relation, path in links.items() if path)
    return {"items": list(items), **links}, {"Link": header} if header else {}


def _path(kept: Mapping[str, Any], neighbour: Mapping[str, str | None]) -> str | None:
    if None in neighbour.values():
        return None
    return url_for(request.endpoint or "", **{**(request.view_args or {}), **kept, **neighbour})
