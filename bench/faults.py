"""The faults that a system has to recover from, and the outcomes of the jobs that they affect."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from bench.systems import End, System
from tests.support.servers import wait_for

WORK = 2.0  # seconds that a job takes
KILLS = 5  # kills of a child, since the time until Celery notices varies
LONG_WORK, SHORT_WORK = 4.0, 0.2  # seconds that the running jobs take, and the jobs that wait for them
RUNNING, WAITING = 2, 18  # such jobs; a worker of bare Celery prefetches eight, the others stay in Redis
UNDER_WAY = 1.0  # seconds that a job has been running when the fault occurs
MAILS = 5
SMTP_AWAY = 60.0  # seconds
POLL_INTERVAL = 0.1  # seconds between two checks whether the jobs have ended
SETTLE = 10.0  # seconds in which a finished job may run again, before its runs are counted


@dataclass(frozen=True)
class AffectedJobs:
    """The jobs affected by a fault, its end (in seconds since 1970), and functions that count events of a job."""

    jobs: Sequence[str]
    over_at: float
    counts: dict[str, Callable[[str], int]]


@dataclass(frozen=True)
class Fault:
    """A fault: `inject` starts jobs and causes the fault, `times` times in succession."""

    title: str
    inject: Callable[[System], AffectedJobs]
    times: int = 1


@dataclass(frozen=True)
class Outcome:
    """The outcome of the jobs: `seconds` from the end of the fault to the end of each job that ended.

    `errors` are the errors of failed jobs, `missing` the state of each job that did not end within `timeout` seconds.
    `counts` are the numbers of begins and ends, or of delivered mails, for each job.
    """

    jobs: int
    timeout: float
    seconds: Sequence[float]
    errors: Sequence[str]
    missing: Sequence[str]
    counts: dict[str, Sequence[int]]

    @property
    def slowest(self) -> float | None:
        """The longest time that a job took, in seconds; None unless all succeeded."""
        return None if self.errors or self.missing else max(self.seconds)

    def __str__(self) -> str:
        if self.slowest is not None:
            return f"{_range(self.seconds, '.1f')} s"
        causes = ", ".join(self._tally([*self.missing, *self.errors]))
        return f"not within {self.timeout:g} s ({causes})" if self.missing else f"failed ({causes})"

    @property
    def times(self) -> str:
        """The counts as text."""
        return ", ".join(f"{what} {_range(counts, 'd')}×" for what, counts in self.counts.items())

    def _tally(self, causes: Iterable[str]) -> Iterable[str]:
        for cause, count in Counter(causes).items():
            yield cause if self.jobs == 1 else f"{count} of {self.jobs}: {cause}"


def child_killed(system: System) -> AffectedJobs:
    """Kill (SIGKILL) the worker's child process that runs a job. The fault ends immediately."""
    job = _start_and_wait(system, WORK)
    os.kill(system.log.process(job), signal.SIGKILL)
    return _worked(system, [job], time.time())


def worker_killed(system: System) -> AffectedJobs:
    """Kill (SIGKILL) the whole worker while it runs a job. The fault ends when another is started, immediately."""
    job = _start_and_wait(system, WORK)
    system.kill_worker()
    over_at = time.time()
    system.start_worker()
    return _worked(system, [job], over_at)


def redis_emptied(system: System) -> AffectedJobs:
    """Kill Redis while jobs run and others wait in the queue. The fault ends when an empty Redis answers."""
    running = [system.start_work(LONG_WORK) for _job in range(RUNNING)]
    waiting = [system.start_work(SHORT_WORK) for _job in range(WAITING)]
    wait_for(lambda: all(map(system.log.begun, running)), timeout=60, what="the jobs begin")
    time.sleep(UNDER_WAY)
    with system.servers.redis.stopped():
        pass
    return _worked(system, [*running, *waiting], time.time())


def smtp_down(system: System) -> AffectedJobs:
    """Send mails while the SMTP server is down. The fault ends when the server is started."""
    began = time.monotonic()
    jobs = [system.start_mail() for _mail in range(MAILS)]
    while time.monotonic() < began + SMTP_AWAY:
        system.supervise()
        time.sleep(POLL_INTERVAL)
    system.smtp.start()
    return AffectedJobs(jobs, time.time(), {"mailed": system.mailed})


#: The faults that are measured at the same time. They hardly affect each other, since jobs only sleep. A booting worker
#: uses the CPU, so that fault is paired with the one that lasts a minute.
ROUNDS = (
    (Fault("a worker's child is killed", child_killed, KILLS), Fault("Redis restarts empty", redis_emptied)),
    (
        Fault("a worker is killed with its children", worker_killed),
        Fault(f"SMTP is down for {SMTP_AWAY:g} s", smtp_down),
    ),
)


def recover(system: System, fault: Fault, timeout: float) -> Outcome:
    """Cause `fault`, each time waiting for the affected jobs until `timeout` seconds after its end."""
    all_affected: list[AffectedJobs] = []
    seconds, errors, missing = list[float](), list[str](), list[str]()
    while len(all_affected) < fault.times and not missing:
        affected = fault.inject(system)
        ends = _wait(system, affected, timeout)
        seconds += [end.at - affected.over_at for end in ends.values()]
        errors += [end.error for end in ends.values() if end.error]
        missing += [
            "late" if system.end(job) else system.unfinished_state(job) for job in affected.jobs if job not in ends
        ]
        all_affected.append(affected)
    time.sleep(SETTLE)
    counts: dict[str, list[int]] = defaultdict(list)
    for affected in all_affected:
        for what, count in affected.counts.items():
            counts[what] += map(count, affected.jobs)
    jobs = sum(len(affected.jobs) for affected in all_affected)
    return Outcome(jobs, timeout, seconds, errors, missing, dict(counts))


def _start_and_wait(system: System, seconds: float) -> str:
    """Start a job, and return once it is running."""
    job = system.start_work(seconds)
    wait_for(lambda: system.log.begun(job), timeout=60, what="the job begins")
    time.sleep(UNDER_WAY)
    return job


def _worked(system: System, jobs: Sequence[str], over_at: float) -> AffectedJobs:
    return AffectedJobs(jobs, over_at, {"begun": system.log.begun, "done": system.log.done})


def _wait(system: System, affected: AffectedJobs, timeout: float) -> dict[str, End]:
    """Return the ends of the jobs that ended in time."""
    ends: dict[str, End] = {}
    while True:
        for job in affected.jobs:
            if job not in ends and (end := system.end(job)):
                ends[job] = end
        if len(ends) == len(affected.jobs) or time.time() > affected.over_at + timeout:
            return ends
        system.supervise()
        time.sleep(POLL_INTERVAL)


def _range(numbers: Sequence[float], form: str) -> str:
    """Return the minimum and the maximum as text, or one number if they are formatted alike."""
    least, greatest = format(min(numbers), form), format(max(numbers), form)
    return least if least == greatest else f"{least} to {greatest}"
