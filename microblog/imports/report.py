"""What became of a file's entries, as the job's result has it: counts, and the first of those that were refused."""

from __future__ import annotations

from collections import Counter
from typing import Any

from microblog.imports.formats import Draft, LeftOut, Refused
from microblog.imports.reader import Entry

SHOWN = 100  # refusals that are listed


class Report:
    """Counts what was made of each entry. It has no texts of posts: where they are told by number, line and address."""

    def __init__(self) -> None:
        self.read = 0  # entries
        self.posts = 0  # those of them that may come in
        self._left_out: Counter[str] = Counter()
        self._refused = 0
        self._refusals: list[dict[str, Any]] = []

    def note(self, entry: Entry, outcome: Draft | LeftOut | Refused) -> None:
        """Count one entry."""
        self.read += 1
        if isinstance(outcome, Draft):
            self.posts += 1
        elif isinstance(outcome, LeftOut):
            self._left_out[outcome.kind] += 1
        else:
            self._refused += 1
            if len(self._refusals) < SHOWN:
                where = {"number": entry.number, "line": entry.line, "address": _address(entry.value)}
                self._refusals.append(where | {"reason": str(outcome)})

    def to_dict(self, imported: int) -> dict[str, Any]:
        """The report in JSON; `imported` posts came in, so that the others were there already."""
        return {
            "read": self.read,
            "imported": imported,
            "known": max(0, self.posts - imported),
            "left_out": dict(self._left_out),
            "refused": self._refused,
            "refusals": self._refusals,
        }


def _address(value: Any) -> str | None:
    """Where the post can be read in the place that it comes from, if the file says so."""
    note = value.get("object") if isinstance(value, dict) else None
    address = note.get("url") if isinstance(note, dict) else None
    return address[:500] if isinstance(address, str) and address.startswith(("https://", "http://")) else None
