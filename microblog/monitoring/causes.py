"""Why tasks fail: their failures, grouped by cause."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.orm import aliased

from microblog.extensions import db
from microblog.taskqueue import states
from microblog.taskqueue.models import Task

LONGEST_TEXT = 200  # characters; what comes after them seldom tells two causes apart
_LAST_FRAME = re.compile(r'.*^  File "', re.S | re.M)
_EXCEPTION = re.compile(r"^(?P<kind>[A-Za-z_][\w.]*)(?:: (?P<text>.*))?$", re.M)
# What differs from one failure to the next of the same cause, and what is written in its place.
_VARYING = (
    (re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", re.I), "<id>"),
    (re.compile(r"[^\s<>\"'@]+@[^\s<>\"'@]+"), "<address>"),
    (re.compile(r"(?<!\w)(?P<quote>['\"]).*?(?P=quote)(?!\w)"), "<text>"),
    (re.compile(r"\b(?:0x[0-9a-f]+|(?=[a-f]*[0-9])[0-9a-f]{8,})\b", re.I), "<hex>"),
    (re.compile(r"(?<![A-Za-z_])\d+(?:[.,:]\d+)*"), "N"),
    (re.compile(r"\s+"), " "),
)


@dataclass(frozen=True)
class Cause:
    """Failures of one task that differ in names and numbers alone.

    `kind` is the exception's class, empty if none was raised; `text` what was said, with ``N``, ``<id>`` and the like
    for what varies; `first` and `last` when it was met; `example` the id of the latest job that met it.
    """

    name: str
    kind: str
    text: str
    count: int
    first: datetime
    last: datetime
    example: str

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dict(vars(self))


class _Failed(NamedTuple):
    name: str
    error: str | None
    traceback: str | None
    finished_at: datetime
    root_id: str


def failures(since: datetime, name: str | None = None) -> list[Cause]:
    """Why tasks (or those called `name`) failed since `since`, the most frequent cause first.

    A step that failed only because the one before it did is left out. Reads the rows, which are kept for a while
    only; needs no Redis. Raises sqlalchemy.exc.DBAPIError.
    """
    causes: dict[tuple[str, str, str], Cause] = {}
    before = aliased(Task)
    taken_along = sa.exists().where(
        before.root_id == Task.root_id, before.position < Task.position, before.state == states.FAILURE
    )
    failed = (
        sa.select(Task.name, Task.error, Task.traceback, Task.finished_at, Task.root_id)
        .where(Task.finished_at >= since, Task.state == states.FAILURE, ~taken_along)
        .order_by(Task.finished_at)
    )
    if name is not None:
        failed = failed.where(Task.name == name)
    for row in db.session.execute(failed.execution_options(yield_per=1000)):
        failure = _Failed._make(row)
        key = (failure.name, *cause_of(failure.error, failure.traceback))
        known = causes.get(key)
        first, times = (known.first, known.count) if known else (failure.finished_at, 0)
        causes[key] = Cause(*key, times + 1, first, failure.finished_at, failure.root_id)
    return sorted(causes.values(), key=lambda cause: (-cause.count, -cause.last.timestamp()))


def cause_of(error: str | None, traceback: str | None) -> tuple[str, str]:
    """The class of the exception that a task failed with, and what it said, without what varies."""
    raised = _EXCEPTION.search(traceback, _end_of_frames(traceback)) if traceback else None
    if raised is None:
        return "", normalise(error or "")
    return raised["kind"].rpartition(".")[2], normalise(raised["text"] or "")


def normalise(text: str) -> str:
    """`text` with a word in place of each number, id, address or quotation, on one line that is not too long."""
    for pattern, replacement in _VARYING:
        text = pattern.sub(replacement, text)
    return text.strip()[:LONGEST_TEXT]


def _end_of_frames(traceback: str) -> int:
    frames = _LAST_FRAME.match(traceback)
    return traceback.index("\n", frames.end()) + 1 if frames and "\n" in traceback[frames.end() :] else 0
