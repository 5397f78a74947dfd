"""What rooms have for an open page beside its user's own jobs: topics to listen to, and events that it missed.

A room registers a function when it is wired in, so that this one need not know it. It is given the reader's id and
the arguments with which the page asks for its stream, and returns None where these do not concern it ::

    @sources.offers("posts")
    def posts_of_page(reader_id: int, arguments: Mapping[str, str]) -> Source | None: ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Event = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Source:
    """`topics` to listen to, and `missed`: the events after a time (seconds since 1970), in any order."""

    topics: Iterable[str]
    missed: Callable[[float], list[Event]]


Offer = Callable[[int, Mapping[str, str]], Source | None]

_offers: dict[str, Offer] = {}


def offers(kind: str) -> Callable[[Offer], Offer]:
    """Register the function that finds what there is of this kind for a page."""

    def register(offer: Offer) -> Offer:
        _offers[kind] = offer
        return offer

    return register


def of_page(reader_id: int, arguments: Mapping[str, str]) -> list[Source]:
    """All that the rooms have for a reader's page. Raises werkzeug's BadRequest if `arguments` make no sense."""
    found = (_offers[kind](reader_id, arguments) for kind in sorted(_offers))
    return [source for source in found if source is not None]
