"""The time from the end of a fault to the end of the jobs, compared to bare Celery on Redis in the same run."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier
from typing import ClassVar

from bench.faults import ROUNDS, Fault, Outcome, recover
from bench.servers import Servers
from bench.systems import BareCelery, BareCeleryAcksLate, Microblog, System

JOB_TIMEOUT = 120.0  # seconds
RECOVERY_TIMEOUT = 60.0  # seconds after the end of the last fault within which every job of Microblog ends
READY_TIMEOUT = 180.0  # seconds within which all systems must be ready, on a busy machine
SYSTEMS: dict[type[System], str] = {
    Microblog: "Microblog",
    BareCelery: "bare Celery",
    BareCeleryAcksLate: "bare Celery, acks_late",
}
Pair = tuple[Fault, type[System]]
_COLUMNS = "{:<37} {:<19} {:<40} {:<42} {:<7} {}"


@dataclass(frozen=True)
class Recovery:
    """Two lines of the table: the times that each system took after a fault, and how often it ran each job."""

    header: ClassVar[str] = _COLUMNS.format("from fault's end to jobs' end", *SYSTEMS.values(), "target", "").rstrip()

    fault: Fault
    outcomes: Sequence[Outcome]  # of SYSTEMS, in order

    @property
    def reached(self) -> bool:
        """Return whether Microblog kept its promise."""
        ours = self.outcomes[0].slowest
        return ours is not None and ours <= RECOVERY_TIMEOUT

    def __str__(self) -> str:
        verdict = "ok" if self.reached else "missed"
        seconds = _COLUMNS.format(self.fault.title, *map(str, self.outcomes), f"≤ {RECOVERY_TIMEOUT:g} s", verdict)
        times = _COLUMNS.format("", *(outcome.times for outcome in self.outcomes), "", "")
        return f"{seconds.rstrip()}\n{times.rstrip()}"


def run(servers: Servers, *, timeout: float = JOB_TIMEOUT) -> Iterator[Recovery]:
    """Yield one result for each fault. Jobs are awaited until `timeout` seconds after the end of the fault.

    `servers` is not used: each pair of a fault and a system has its own servers.
    """
    for faults in ROUNDS:
        measured = _side_by_side(list(product(faults, SYSTEMS)), timeout)
        for fault in faults:
            yield Recovery(fault, [measured[fault, system] for system in SYSTEMS])


def _side_by_side(pairs: Sequence[Pair], timeout: float) -> dict[Pair, Outcome]:
    """Return the outcome of each pair of a fault and a system, each in its own process, since Celery has a current app.

    Raises RuntimeError if a measurement failed; its process has printed the traceback.
    """
    context = multiprocessing.get_context("spawn")
    all_ready, outcomes = context.Barrier(len(pairs)), context.SimpleQueue()
    processes = [context.Process(target=_measure, args=(*pair, timeout, all_ready, outcomes)) for pair in pairs]
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
    timeout: float,
    all_ready: Barrier,
    outcomes: SimpleQueue[tuple[Pair, Outcome]],
) -> None:
    """Start a system, wait until all others are ready, cause the fault, and put the outcome into `outcomes`."""
    try:
        with Servers() as servers, system(servers) as ready:
            all_ready.wait(READY_TIMEOUT)
            outcome = recover(ready, fault, timeout)
    except BaseException:
        all_ready.abort()  # stop the other processes, too
        raise
    outcomes.put(((fault, system), outcome))
