"""What became of a file's entries: counts and the first refusals for the job's result, all refusals for their list."""

from __future__ import annotations

from collections import Counter
from typing import Any

from microblog.imports.formats import Draft, LeftOut, Refused
from microblog.imports.models import LONGEST_ADDRESS
from microblog.imports.reader import Entry
from microblog.text import replace_unstorable

SHOWN = 100  # refusals that the result has
# Refusals that are kept of a file, and of a user (sweep.delete_refused): what is all brackets must not fill the disk.
LISTED = 1_000_000


class Report:
    """Counts what was made of each entry. It has no texts of posts: where they are told by number, line and address."""

    def __init__(self) -> None:
        self.read = 0  # entries
        self.posts = 0  # those of them that may come in
        self.kept = 0  # entries of which all that may come in is in the database
        self._left_out: Counter[str] = Counter()
        self._refused = 0
        self._first: list[dict[str, Any]] = []
        self._new: list[dict[str, Any]] = []
        self._without_media = 0

    def note(self, entry: Entry, outcome: Draft | LeftOut | Refused) -> None:
        """Count one entry."""
        self.read += 1
        if isinstance(outcome, Draft):
            self.posts += 1
            self._without_media += outcome.has_media
        elif isinstance(outcome, LeftOut):
            self._left_out[outcome.kind] += 1
        else:
            self._refused += 1
            where = {"number": entry.number, "line": entry.line, "address": _address(entry.value)}
            refusal = where | {"reason": str(outcome)}
            if self._refused <= SHOWN:
                self._first.append(refusal)
            if self._refused <= LISTED:
                self._new.append(refusal | {"place": self.read})

    def take_refusals(self) -> list[dict[str, Any]]:
        """The refusals since this was asked last, as models.Refusal has them; LISTED at most of all."""
        refusals, self._new = self._new, []
        return refusals

    def to_dict(self, imported: int) -> dict[str, Any]:
        """The report in JSON; `imported` posts came in, so that the others were there already."""
        return {
            "read": self.read,
            "imported": imported,
            "known": max(0, self.posts - imported),
            "without_media": self._without_media,
            "left_out": dict(self._left_out),
            "refused": self._refused,
            "refusals": self._first,
        }


def _address(value: Any) -> str | None:
    """Where the post can be read in the place that it comes from, if the file says so, as it can be kept and sent."""
    note = value.get("object") if isinstance(value, dict) else None
    address = note.get("url") if isinstance(note, dict) else None
    if not isinstance(address, str) or not address.startswith(("https://", "http://")):
        return None
    return replace_unstorable(address[:LONGEST_ADDRESS])
