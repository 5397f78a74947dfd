"""Paginated lists: items, `next`, `prev` and the Link header."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from flask import request, url_for

from microblog.pagination import Page

PageResponse = tuple[dict[str, Any], dict[str, str]]


def newest_first(query: Mapping[str, Any], page: Page[Any], items: Iterable[Any]) -> PageResponse:
    """Return the body and headers of `page`, for a view decorated with Blueprint.lists().

    `query` is the parsed query string; `items` are the items of the page, in the form that its schema expects.
    """
    return listed(query, items, {"before": page.older}, {"after": page.newer})


def listed(
    query: Mapping[str, Any],
    items: Iterable[Any],
    following: Mapping[str, str | None],
    preceding: Mapping[str, str | None],
) -> PageResponse:
    """Like newest_first(), for a list in another order.

    `following` and `preceding` are the query parameters of the adjacent pages. A value of None means that there is no
    such page.
    """
    parameters = {name: value for name, value in query.items() if name not in ("before", "after")}
    links = {"next": _path(parameters, following), "prev": _path(parameters, preceding)}
    header = ", ".join(f'<{path}>; rel="{relation}"' for relation, path in links.items() if path)
    return {"items": list(items), **links}, {"Link": header} if header else {}


def _path(parameters: Mapping[str, Any], adjacent: Mapping[str, str | None]) -> str | None:
    if None in adjacent.values():
        return None
    return url_for(request.endpoint or "", **{**(request.view_args or {}), **parameters, **adjacent})
