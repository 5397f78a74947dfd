"""The schedule of the faults, which depends only on the seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from tests.support.external import FAKETIME

FIRST = 3.0  # seconds before the first fault
PAUSES = (2.0, 5.0)  # seconds from one fault to the next

#: Each kind with the range of its duration in seconds; more frequent kinds are listed more than once.
KINDS: list[tuple[str, tuple[float, float]]] = [
    ("duplicate_requests", (0, 0)),
    ("backlog", (0, 0)),
    ("kill_child", (0, 0)),
    ("kill_child", (0, 0)),
    ("kill_exporting_child", (0, 0)),
    ("kill_mailing_child", (0, 0)),
    ("stop_worker", (0, 0)),
    ("old_worker", (4, 7)),
    ("skewed_worker", (5, 8)),
    ("kill_worker", (0, 0)),
    ("kill_worker", (0, 0)),
    ("kill_web", (0, 0)),
    ("clock_set_back", (5, 8)),
    ("kill_beat", (0, 0)),
    ("freeze_worker", (10, 13)),
    ("freeze_exporting_worker", (10, 13)),
    ("restart_redis", (0.2, 5)),
    ("empty_redis", (0.2, 5)),
    ("redis_refuses", (1, 5)),
    ("smtp_refuses", (3, 8)),
    ("smtp_hangs", (3, 8)),
    ("smtp_drops", (3, 8)),
    ("interrupt_database", (1, 3)),
    ("database_refuses", (1, 12)),
    ("move_database", (1, 4)),
    ("few_connections", (1, 4)),
    ("copy_messages", (0, 0)),
    ("publish_rows_again", (0, 0)),
]


@dataclass(frozen=True)
class PlannedFault:
    """One fault: its time and duration in seconds, and the seed of its random choices."""

    at: float
    kind: str
    length: float
    seed: int

    def __str__(self) -> str:
        return f"{self.at:6.1f} s  {self.kind}" + (f" for {self.length:.1f} s" if self.length else "")


def plan(seed: int, seconds: float) -> list[PlannedFault]:
    """Return the faults of a run that lasts `seconds`."""
    rng = random.Random(seed)
    kinds = _shuffled(rng)
    faults, at = [], FIRST
    while at < seconds:
        kind, (shortest, longest) = next(kinds)
        faults.append(PlannedFault(at, kind, rng.uniform(shortest, longest), rng.getrandbits(32)))
        at += rng.uniform(*PAUSES)
    return faults


def left_out(database: str) -> dict[str, str]:
    """Return the kinds of faults that cannot occur here, each with the reason."""
    reasons = {}
    if FAKETIME.find() is None:
        reasons = dict.fromkeys(("skewed_worker", "clock_set_back"), FAKETIME.reason)
    if database == "sqlite":
        reasons["skewed_worker"] = "all processes that use SQLite run on one machine and have its clock"
        reasons |= dict.fromkeys(("interrupt_database", "move_database", "few_connections"), "SQLite has no server")
    return reasons


def _shuffled(rng: random.Random) -> Iterator[tuple[str, tuple[float, float]]]:
    """Yield all kinds in random order, again and again, so that even a short run has nearly every kind."""
    while True:
        yield from rng.sample(KINDS, len(KINDS))
