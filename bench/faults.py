"""The faults that a system is to recover from, and what becomes of the jobs that they hit."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from bench.systems import End, System
from tests.support.servers import wait_for

WORK = 2.0  # seconds that a job works
KILLS = 5  # of a child: how soon Celery notices differs
LONG_WORK, SHORT_WORK = 4.0, 0.2  # seconds that jobs work that fill the worker, and that wait behind these
RUNNING, WAITING = 2, 18  # such jobs; a worker of stock Celery takes eight at once, the others stay in Redis
UNDER_WAY = 1.0  # seconds that a job has been running when the fault strikes
MAILS = 5
SMTP_AWAY = 60.0  # seconds
LOOK = 0.1  # seconds between two looks whether the jobs have ended
SETTLE = 10.0  # seconds in which a job that has ended may yet be done again, before it is counted how often it was


@dataclass(frozen=True)
class Struck:
    """The jobs that a fault hit, when it was over (in seconds since 1970), and what can be counted of each job."""

    jobs: Sequence[str]
    over_at: float
    counts: dict[str, Callable[[str], int]]


@dataclass(frozen=True)
class Fault:
    """What is done to a system that has jobs, and how many times, one after the other."""

    title: str
    strike: Callable[[System], Struck]
    times: int = 1


@dataclass(frozen=True)
class Outcome:
    """What became of the jobs: of all that ended, the seconds from the fault's end to the job's.

    `errors` are what some ended with, `missing` where those are that did not end within `patience` seconds. `counts`
    tells of each job how often it began and was done, or its mail was delivered.
    """

    jobs: int
    patience: float
    seconds: Sequence[float]
    errors: Sequence[str]
    missing: Sequence[str]
    counts: dict[str, Sequence[int]]

    @property
    def slowest(self) -> float | None:
        """The most seconds that a job took; None if not all ended well."""
        return None if self.errors or self.missing else max(self.seconds)

    def __str__(self) -> str:
        if self.slowest is not None:
            return f"{_range(self.seconds, '.1f')} s"
        fates = ", ".join(self._tally([*self.missing, *self.errors]))
        return f"not within {self.patience:g} s ({fates})" if self.missing else f"failed ({fates})"

    @property
    def times(self) -> str:
        """The counts in words."""
        return ", ".join(f"{what} {_range(counts, 'd')}×" for what, counts in self.counts.items())

    def _tally(self, fates: Iterable[str]) -> Iterable[str]:
        for fate, count in Counter(fates).items():
            yield fate if self.jobs == 1 else f"{count} of {self.jobs}: {fate}"


def child_killed(system: System) -> Struck:
    """kill -9 of the worker's child that runs a job. It is over at once."""
    job = _start_and_wait(system, WORK)
    os.kill(system.diary.process(job), signal.SIGKILL)
    return _worked(system, [job], time.time())


def worker_killed(system: System) -> Struck:
    """kill -9 of the whole worker while it runs a job. It is over when another is started, which is at once."""
    job = _start_and_wait(system, WORK)
    system.kill_worker()
    over_at = time.time()
    system.start_worker()
    return _worked(system, [job], over_at)


def redis_emptied(system: System) -> Struck:
    """Redis is killed while jobs run and others wait in the queue. It is over when an empty Redis answers."""
    running = [system.start_work(LONG_WORK) for _job in range(RUNNING)]
    waiting = [system.start_work(SHORT_WORK) for _job in range(WAITING)]
    wait_for(lambda: all(map(system.diary.begun, running)), timeout=60, what="the jobs begin")
    time.sleep(UNDER_WAY)
    with system.house.redis.away():
        pass
    return _worked(system, [*running, *waiting], time.time())


def smtp_away(system: System) -> Struck:
    """Nobody listens at the SMTP server's port when mails are to be sent. It is over when the server is back."""
    began = time.monotonic()
    jobs = [system.start_mail() for _mail in range(MAILS)]
    while time.monotonic() < began + SMTP_AWAY:
        system.supervise()
        time.sleep(LOOK)
    system.smtp.start()
    return Struck(jobs, time.time(), {"mailed": system.mailed})


#: The faults that strike at the same time, which hardly any of them notices: jobs sleep. Only a worker that boots keeps
#: the machine busy, so beside it is the fault that lasts a minute.
ROUNDS = (
    (Fault("a worker's child is killed", child_killed, KILLS), Fault("Redis restarts empty", redis_emptied)),
    (
        Fault("a worker is killed with its children", worker_killed),
        Fault(f"SMTP is away for {SMTP_AWAY:g} s", smtp_away),
    ),
)


def recover(system: System, fault: Fault, patience: float) -> Outcome:
    """Let `fault` strike, each time waiting for the jobs that it hit until `patience` seconds after its end."""
    all_struck: list[Struck] = []
    seconds, errors, missing = list[float](), list[str](), list[str]()
    while len(all_struck) < fault.times and not missing:
        struck = fault.strike(system)
        ends = _wait(system, struck, patience)
        seconds += [end.at - struck.over_at for end in ends.values()]
        errors += [end.error for end in ends.values() if end.error]
        missing += ["late" if system.end(job) else system.whereabouts(job) for job in struck.jobs if job not in ends]
        all_struck.append(struck)
    time.sleep(SETTLE)
    counts: dict[str, list[int]] = defaultdict(list)
    for struck in all_struck:
        for what, count in struck.counts.items():
            counts[what] += map(count, struck.jobs)
    jobs = sum(len(struck.jobs) for struck in all_struck)
    return Outcome(jobs, patience, seconds, errors, missing, dict(counts))


def _start_and_wait(system: System, seconds: float) -> str:
    """Start a job; returns when it is under way."""
    job = system.start_work(seconds)
    wait_for(lambda: system.diary.begun(job), timeout=60, what="the job begins")
    time.sleep(UNDER_WAY)
    return job


def _worked(system: System, jobs: Sequence[str], over_at: float) -> Struck:
    return Struck(jobs, over_at, {"begun": system.diary.begun, "done": system.diary.done})


def _wait(system: System, struck: Struck, patience: float) -> dict[str, End]:
    """How those of the jobs ended that did so in time."""
    ends: dict[str, End] = {}
    while True:
        for job in struck.jobs:
            if job not in ends and (end := system.end(job)):
                ends[job] = end
        if len(ends) == len(struck.jobs) or time.time() > struck.over_at + patience:
            return ends
        system.supervise()
        time.sleep(LOOK)


def _range(numbers: Sequence[float], form: str) -> str:
    """The least and the greatest, or the one number if they look alike."""
    least, greatest = format(min(numbers), form), format(max(numbers), form)
    return least if least == greatest else f"{least} to {greatest}"
