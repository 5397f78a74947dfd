"""The source's strings, and a pseudolocale that puts each in brackets, to find text that comes from no catalog."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po

from tests.support.programs import ROOT

LANGUAGE = "eo"  # a locale that Babel supports and no catalog uses
# Attributes with text that is displayed or read aloud, and those with texts that scripts display.
TEXT_ATTRIBUTES = (
    "alt",
    "aria-label",
    "placeholder",
    "title",
    "data-announcement",
    "data-template",
    "data-remaining",
    "data-exceeded",
    "data-select-none",
    "data-deleted",
    "data-original",
    "data-failed",
    "data-too-large",
)
JSON_TEXT_ATTRIBUTE = "data-labels"  # a JSON object whose values are displayed
_VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
_IN_BRACKETS = re.compile(r"⟦[^⟦⟧]*⟧")


def extract(folder: Path) -> Catalog:
    """Return the strings of the source, as `make translations` extracts them; `folder` is for a temporary file."""
    pot = folder / "messages.pot"
    subprocess.run(["make", "--silent", str(pot), f"POT={pot}", f"VENV={sys.prefix}"], cwd=ROOT, check=True)
    with pot.open("rb") as file:
        return read_po(file)


def write_catalog(directory: Path) -> None:
    """Write the compiled catalog of the pseudolocale to a `directory` of translations."""
    path = directory / LANGUAGE / "LC_MESSAGES" / "messages.mo"
    path.parent.mkdir(parents=True)
    catalog = extract(directory)
    for message in catalog:
        if not message.id:
            continue  # the header
        texts = message.id if isinstance(message.id, tuple) else [message.id]
        bracketed = tuple(f"⟦{text}⟧" for text in texts)
        message.string = bracketed if isinstance(message.id, tuple) else bracketed[0]
    with path.open("wb") as file:
        write_mo(file, catalog)


def unbracketed(text: str) -> str:
    """Return the part of `text` outside brackets, or an empty string if it has no letters."""
    text = text.replace("Microblog", "")
    while (rest := _IN_BRACKETS.sub("", text)) != text:
        text = rest
    return text.strip() if re.search(r"[^\W\d_]", text) else ""


class Reader(HTMLParser):
    """A parser that collects in `found` the texts of a page that do not come from the catalog.

    It ignores texts that need no catalog: the name of the site, elements with ``translate="no"``, English ones with
    ``lang="en"`` (which operators also see in a terminal), and languages, time zones and dates, which Babel formats.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._open: list[tuple[str, bool]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        ignored = (
            attributes.get("translate") == "no" or attributes.get("lang") == "en" or tag in ("script", "style", "time")
        )
        ignored |= attributes.get("name") in ("locale", "timezone") or bool(self._open and self._open[-1][1])
        if not ignored:
            texts = [attributes.get(name) or "" for name in TEXT_ATTRIBUTES]
            texts += json.loads(attributes.get(JSON_TEXT_ATTRIBUTE) or "{}").values()
            self.found += filter(None, map(unbracketed, texts))
        if tag not in _VOID:
            self._open.append((tag, ignored))

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        if not (self._open and self._open[-1][1]):
            self.found += filter(None, [unbracketed(data)])


def hard_coded(html: str) -> list[str]:
    """Return the texts of `html` that do not come from the catalog."""
    reader = Reader()
    reader.feed(html)
    return reader.found
