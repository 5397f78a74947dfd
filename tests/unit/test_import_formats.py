"""Entries of files that people upload: what cannot be read is refused alone, soon, and in a sentence."""

from __future__ import annotations

import json
from typing import Any
from unittest.mock import Mock

import pytest
from flask import Flask

from microblog.imports.json_reader import BrokenJson, EntryReader
from microblog.imports.parsers import MAX_HTML, Refused, from_archive, from_outbox

PUBLIC = "https://www.w3.org/ns/activitystreams#Public"
THEN = "2026-01-01T00:00:00Z"

# They need the application, but no database.
on_either_database = pytest.mark.parametrize("database", ["sqlite"])


def note(content: str) -> dict[str, Any]:
    return {
        "type": "Create",
        "to": [PUBLIC],
        "object": {"type": "Note", "to": [PUBLIC], "content": content, "published": THEN},
    }


@pytest.mark.parametrize("number", ["1.5", "-0.25E-3", "1.5e+10", "2E5", "-7e-1"])
@pytest.mark.parametrize("around", ['{"posts": [%s, "x"]}', '{"posts": [{"a": %s}, "x"]}', '{"n":%s,"posts": ["x"]}'])
def test_a_number_may_be_cut_anywhere_by_the_end_of_a_read(number: str, around: str) -> None:
    content = (around % number).encode()
    for cut in range(1, len(content)):
        pieces = iter([content[:cut], content[cut:], b""])
        file = Mock(read=lambda _size, pieces=pieces: next(pieces))

        values = [entry.value for entry in EntryReader(file, ["posts"])]

        assert values == json.loads(content)["posts"], cut


@pytest.mark.parametrize("number", ["1.", "1.x", "1e+", "1e+,", "1.5.5"])
def test_what_is_no_number_is_broken_wherever_it_is_cut(number: str) -> None:
    content = f'{{"posts": ["x", {number}]}}'.encode()
    for cut in range(1, len(content)):
        pieces = iter([content[:cut], content[cut:], b""])
        reader = EntryReader(Mock(read=lambda _size, pieces=pieces: next(pieces)), ["posts"])

        with pytest.raises(BrokenJson, match="line 1, column "):
            list(reader)


@on_either_database
@pytest.mark.parametrize("html", ["a <![  b", "<![foo[bar]]>", "&#" + "9" * 4500 + ";"])
def test_html_that_the_parser_breaks_at_is_refused_alone(app: Flask, html: str) -> None:
    with pytest.raises(Refused):
        from_outbox(note(html))


@on_either_database
def test_html_that_would_take_hours_is_refused_unread(app: Flask) -> None:
    with pytest.raises(Refused, match="at most 140"):
        from_outbox(note("<a " * MAX_HTML))


@on_either_database
@pytest.mark.parametrize("time", ["0001-01-01T00:00:00Z", "1969-12-31T23:59:59Z"])
def test_a_time_that_some_zones_cannot_tell_is_refused(app: Flask, time: str) -> None:
    with pytest.raises(Refused, match="before 1970"):
        from_archive({"body": "hello", "timestamp": time})
