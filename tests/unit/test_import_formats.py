"""Entries of uploaded files: one that cannot be read is refused on its own, early, and with a sentence."""

from __future__ import annotations

import json
from typing import Any
from unittest.mock import Mock

import pytest
from flask import Flask

from microblog.imports.json_reader import BrokenJson, EntryReader
from microblog.imports.parsers import MAX_HTML, EntryRejected, from_archive, from_outbox, html_to_text

PUBLIC = "https://www.w3.org/ns/activitystreams#Public"
PUBLISHED = "2026-01-01T00:00:00Z"

# These tests need the application but do not use the database, so one kind is enough.
sqlite_only = pytest.mark.parametrize("database", ["sqlite"])


def note(content: str) -> dict[str, Any]:
    return {
        "type": "Create",
        "to": [PUBLIC],
        "object": {"type": "Note", "to": [PUBLIC], "content": content, "published": PUBLISHED},
    }


@pytest.mark.parametrize("number", ["1.5", "-0.25E-3", "1.5e+10", "2E5", "-7e-1"])
@pytest.mark.parametrize("template", ['{"posts": [%s, "x"]}', '{"posts": [{"a": %s}, "x"]}', '{"n":%s,"posts": ["x"]}'])
def test_number_may_span_reads(number: str, template: str) -> None:
    content = (template % number).encode()
    for cut in range(1, len(content)):
        pieces = iter([content[:cut], content[cut:], b""])
        file = Mock(read=lambda _size, pieces=pieces: next(pieces))

        values = [entry.value for entry in EntryReader(file, ["posts"])]

        assert values == json.loads(content)["posts"], cut


@pytest.mark.parametrize("number", ["1.", "1.x", "1e+", "1e+,", "1.5.5"])
def test_invalid_number_is_refused_at_any_split(number: str) -> None:
    content = f'{{"posts": ["x", {number}]}}'.encode()
    for cut in range(1, len(content)):
        pieces = iter([content[:cut], content[cut:], b""])
        reader = EntryReader(Mock(read=lambda _size, pieces=pieces: next(pieces)), ["posts"])

        with pytest.raises(BrokenJson, match="line 1, column "):
            list(reader)


@sqlite_only
@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("a <![  b", "a"),
        ("a<![foo[bar]]>b", "ab"),
        ("&#" + "9" * 4500 + ";", "\N{REPLACEMENT CHARACTER}"),
        ("a<b<c", "a"),
    ],
)
def test_invalid_html_is_read_as_browsers_do(app: Flask, html: str, text: str) -> None:
    assert html_to_text(html) == text


@sqlite_only
@pytest.mark.parametrize("html", ["<![foo[bar]]>", "a\0b", "\ud800"])
def test_html_without_storable_text_is_refused(app: Flask, html: str) -> None:
    with pytest.raises(EntryRejected):
        from_outbox(note(html))


@sqlite_only
def test_huge_html_is_refused_before_parsing(app: Flask) -> None:
    with pytest.raises(EntryRejected, match="at most 140"):
        from_outbox(note("<a " * MAX_HTML))


@sqlite_only
@pytest.mark.parametrize("time", ["0001-01-01T00:00:00Z", "1969-12-31T23:59:59Z"])
def test_time_before_1970_is_refused(app: Flask, time: str) -> None:
    with pytest.raises(EntryRejected, match="before 1970"):
        from_archive({"body": "hello", "timestamp": time})
