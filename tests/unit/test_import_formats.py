"""Entries of files that people upload: what cannot be read is refused alone, soon, and in a sentence."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask

from microblog.imports.formats import MAX_HTML, Refused, from_archive, from_outbox

PUBLIC = "https://www.w3.org/ns/activitystreams#Public"
THEN = "2026-01-01T00:00:00Z"


def note(content: str) -> dict[str, Any]:
    return {
        "type": "Create",
        "to": [PUBLIC],
        "object": {"type": "Note", "to": [PUBLIC], "content": content, "published": THEN},
    }


@pytest.fixture(params=["sqlite"])
def database(request: pytest.FixtureRequest) -> str:
    """None of this asks it."""
    name: str = request.param
    return name


@pytest.mark.parametrize("html", ["a <![  b", "<![foo[bar]]>", "&#" + "9" * 4500 + ";"])
def test_html_that_the_parser_breaks_at_is_refused_alone(app: Flask, html: str) -> None:
    with pytest.raises(Refused):
        from_outbox(note(html))


def test_html_that_would_take_hours_is_refused_unread(app: Flask) -> None:
    with pytest.raises(Refused, match="at most 140"):
        from_outbox(note("<a " * MAX_HTML))


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00Z", "1969-12-31T23:59:59Z"])
def test_a_time_that_some_zones_cannot_tell_is_refused(app: Flask, time: str) -> None:
    with pytest.raises(Refused, match="before 1970"):
        from_archive({"body": "hello", "timestamp": time})
