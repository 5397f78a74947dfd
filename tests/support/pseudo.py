"""The source's strings, and a pseudo-language that puts each in brackets, to find text that comes from no catalog."""

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

LANGUAGE = "eo"  # Babel must know its dates and numbers; nobody has a catalog for it
# What a reader sees or hears of an element beside its text, and what a script will show.
SPOKEN = (
    "alt",
    "aria-label",
    "placeholder",
    "title",
    "data-said",
    "data-template",
    "data-left",
    "data-over",
    "data-none",
    "data-gone",
    "data-original",
    "data-failed",
    "data-too-large",
)
SPOKEN_IN_JSON = "data-labels"  # an object, whose values are said
_VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
_IN_BRACKETS = re.compile(r"⟦[^⟦⟧]*⟧")


def extract(folder: Path) -> Catalog:
    """Return the strings of the source, as `make translations` extracts them; `folder` is for a temporary file."""
    pot = folder / "messages.pot"
    subprocess.run(["make", "--silent", str(pot), f"POT={pot}", f"VENV={sys.prefix}"], cwd=ROOT, check=True)
    with pot.open("rb") as file:
        return read_po(file)


def write_catalog(directory: Path) -> None:
    """Write the compiled catalog of the pseudo-language to a `directory` of translations."""
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
    """What of `text` did not come from the catalog, if it has a letter; else nothing."""
    text = text.replace("Microblog", "")
    while (rest := _IN_BRACKETS.sub("", text)) != text:
        text = rest
    return text.strip() if re.search(r"[^\W\d_]", text) else ""


class Reader(HTMLParser):
    """Collects in `found` what a page says that did not come from the catalog.

    Left out is what needs no catalog: the site's own name, what says ``translate="no"`` or that it is English (what
    operators also read in a terminal), and the names of languages, zones and dates, which Babel has.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._open: list[tuple[str, bool]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        silent = given.get("translate") == "no" or given.get("lang") == "en" or tag in ("script", "style", "time")
        silent |= given.get("name") in ("locale", "timezone") or bool(self._open and self._open[-1][1])
        if not silent:
            said = [given.get(name) or "" for name in SPOKEN]
            said += json.loads(given.get(SPOKEN_IN_JSON) or "{}").values()
            self.found += filter(None, map(unbracketed, said))
        if tag not in _VOID:
            self._open.append((tag, silent))

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        if not (self._open and self._open[-1][1]):
            self.found += filter(None, [unbracketed(data)])


def hard_coded(html: str) -> list[str]:
    """What `html` says that did not come from the catalog."""
    reader = Reader()
    reader.feed(html)
    return reader.found
