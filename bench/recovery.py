"""How long jobs take to end once a fault is over, beside the same for stock Celery on Redis, all in one run."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier
from typing import ClassVar

from bench.faults import ROUNDS, Fault, Outcome, recover
from bench.house import House
from bench.systems import Microblog, Stock, StockAcksLate, System

PATIENCE = 120.0  # seconds
PROMISE = 60.0  # seconds after the last fault is healed within which every job of ours ends
BOOT = 180.0  # seconds that all systems together may take to be ready on a busy machine
SYSTEMS: dict[type[System], str] = {
    Microblog: "Microblog",
    Stock: "stock Celery",
    StockAcksLate: "stock Celery, acks_late",
}
Pair = tuple[Fault, type[System]]
_COLUMNS = "{:<37} {:<19} {:<40} {:<42} {:<7} {}"


@dataclass(frozen=True)
class Recovery:
    """Two lines of the table: how long each system took after a fault, and how often it did what it had to do."""

    header: ClassVar[str] = _COLUMNS.format("from fault's end to jobs' end", *SYSTEMS.values(), "target", "").rstrip()

    fault: Fault
    outcomes: Sequence[Outcome]  # of SYSTEMS, in order

    @property
    def reached(self) -> bool:
        """Whether ours kept its promise."""
        ours = self.outcomes[0].slowest
        return ours is not None and ours <= PROMISE

    def __str__(self) -> str:
        verdict = "ok" if self.reached else "missed"
        seconds = _COLUMNS.format(self.fault.title, *map(str, self.outcomes), f"≤ {PROMISE:g} s", verdict)
        times = _COLUMNS.format("", *(outcome.times for outcome in self.outcomes), "", "")
        return f"{seconds.rstrip()}\n{times.rstrip()}"


def run(house: House, *, patience: float = PATIENCE) -> Iterator[Recovery]:
    """One line for each fault. A job that has not ended `patience` seconds after its fault's end is not waited for.

    `house` is not used: each fault strikes each system in a house of its own.
    """
    for faults in ROUNDS:
        measured = _side_by_side(list(product(faults, SYSTEMS)), patience)
        for fault in faults:
            yield Recovery(fault, [measured[fault, system] for system in SYSTEMS])


def _side_by_side(pairs: Sequence[Pair], patience: float) -> dict[Pair, Outcome]:
    """What became of each pair of a fault and a system, each in a process of its own: Celery has one app in each.

    Raises RuntimeError if something could not be measured; its process has printed why.
    """
    context = multiprocessing.get_context("spawn")
    all_ready, outcomes = context.Barrier(len(pairs)), context.SimpleQueue()
    processes = [context.Process(target=_measure, args=(*pair, patience, all_ready, outcomes)) for pair in pairs]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise RuntimeError("not everything could be measured")
    return dict(outcomes.get() for _pair in pairs)


def _measure(
    fault: Fault,
    system: type[System],
    patience: float,
    all_ready: Barrier,
    outcomes: SimpleQueue[tuple[Pair, Outcome]],
) -> None:
    """Make a system ready, wait until all others are, let the fault strike, and put its outcome into `outcomes`."""
    try:
        with House() as house, system(house) as ready:
            all_ready.wait(BOOT)
            outcome = recover(ready, fault, patience)
    except BaseException:
        all_ready.abort()  # the others need not wait
        raise
    outcomes.put(((fault, system), outcome))
