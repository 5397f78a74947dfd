"""Rules that tell whether the system is healthy: the only place where this is decided.

``flask tasks status``, ``/admin``, ``flask tasks watch`` and ``/readyz`` apply them, and ``/metrics`` exports which of
them find problems, from which Prometheus alerts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

from microblog.monitoring import output

if TYPE_CHECKING:
    from microblog.monitoring.job_queries import WaitingTasks
    from microblog.monitoring.status import SystemStatus

#: The services that the status is read from; the summary of jobs may take too long in a database that works.
REDIS, DATABASE, JOBS = "redis", "database", "jobs"

PATIENCE = timedelta(minutes=2)  # that a task may wait while no other of its queue starts, or for its publication
FAILURE_RATE_LIMIT = 0.1  # fraction of the tasks of a name that ended recently
MIN_FAILURES = 5  # failed tasks of a name; fewer are not a problem, unless all have failed
MIN_ALL_FAILED = 3  # tasks of a name that ended within an hour, all of them failed
CLOCK_TOLERANCE = 10.0  # seconds


class Verdict(IntEnum):
    """Overall status; its number is the exit code of ``flask tasks status``."""

    HEALTHY = 0
    DEGRADED = 1
    DOWN = 2


@dataclass(frozen=True)
class Rule:
    """A condition under which jobs do not run as they should.

    `find` yields a sentence for each object that meets it, none if the `services` that tell are unavailable. If it
    yields any, the system is at best as `verdict` says. `urgent` problems page somebody; others can wait until morning.
    """

    name: str
    verdict: Verdict
    urgent: bool
    find: Callable[[SystemStatus], Iterator[str]]
    services: tuple[str, ...] = ()

    def is_known(self, status: SystemStatus) -> bool:
        """Return whether `status` has what the rule needs."""
        return not status.unavailable.keys() & set(self.services)


class Problem(NamedTuple):
    """A sentence that a rule has found."""

    rule: Rule
    text: str


def find_problems(status: SystemStatus) -> list[Problem]:
    """Apply every rule; returns the problems that stop all jobs first."""
    return [Problem(rule, text) for rule in RULES if rule.is_known(status) for text in rule.find(status)]


def verdict_of(problems: Sequence[Problem]) -> Verdict:
    """Return the worst verdict of the rules that found `problems`."""
    return max((problem.rule.verdict for problem in problems), default=Verdict.HEALTHY)


def _database(status: SystemStatus) -> Iterator[str]:
    if reason := status.unavailable.get(DATABASE):
        yield reason


def _redis(status: SystemStatus) -> Iterator[str]:
    if reason := status.unavailable.get(REDIS):
        yield reason


def _worker(status: SystemStatus) -> Iterator[str]:
    if status.workers is not None and not status.workers.up:
        yield "No worker replied."


def _silent_workers(status: SystemStatus) -> Iterator[str]:
    for name in status.workers.silent if status.workers else ():
        yield f"{name} does not respond."


def _workers_without_processes(status: SystemStatus) -> Iterator[str]:
    for worker in status.workers.summaries() if status.workers else ():
        if worker.concurrency == 0:
            yield f"{worker.name} has no processes: flask tasks worker {worker.name} grow."


def _outdated_workers(status: SystemStatus) -> Iterator[str]:
    for name, unknown in status.unknown_tasks.items():
        yield f"{name} runs another release: it does not know {', '.join(unknown)}."


def _clocks(status: SystemStatus) -> Iterator[str]:
    for name, ahead in status.clocks.items():
        if abs(ahead) > CLOCK_TOLERANCE:
            direction = "ahead of" if ahead > 0 else "behind"
            yield f"The clock of {name} is {abs(ahead):.0f} s {direction} that of the database."


def _paused_queues(status: SystemStatus) -> Iterator[str]:
    for queue in status.queues or ():
        if queue.length and queue.paused:
            yield f"The queue {queue.name} is paused; waiting messages: {queue.length}."


def _queues_without_consumers(status: SystemStatus) -> Iterator[str]:
    for queue in status.queues or ():
        if queue.length and queue.consumers == 0 and not queue.paused:
            yield f"No worker consumes the queue {queue.name}; waiting messages: {queue.length}."


def _waits(status: SystemStatus, tasks: WaitingTasks) -> bool:
    return status.at - tasks.since > PATIENCE


def _slow_database(status: SystemStatus) -> Iterator[str]:
    if reason := status.unavailable.get(JOBS):
        yield f"The jobs cannot be counted, so it is unknown whether they run: {reason}"


def _stalled_queues(status: SystemStatus) -> Iterator[str]:
    """Yield the queues in which nothing happens: a queue that is long, but consumed, is none of them.

    Other rules explain why nothing happens in a paused queue, in one without consumers, and to tasks with a rate limit.
    """
    if status.jobs is None:
        return
    explained = {queue.name for queue in status.queues or () if queue.paused or queue.consumers == 0}
    limited = {name for limits in status.rate_limits.values() for name in limits}
    waiting = [
        tasks
        for tasks in status.jobs.waiting
        if tasks.published and _waits(status, tasks) and tasks.name not in limited
    ]
    oldest = {tasks.queue: tasks for tasks in reversed(waiting)}
    for queue in sorted(oldest.keys() - {*status.jobs.active_queues, *explained}):
        wait = output.format_duration(status.at - oldest[queue].since)
        yield f"No task of the queue {queue} starts; {oldest[queue].name} has been waiting for {wait}."


def _rate_limits(status: SystemStatus) -> Iterator[str]:
    waiting = (
        {tasks.name for tasks in status.jobs.waiting if tasks.published and _waits(status, tasks)}
        if status.jobs
        else set()
    )
    for worker, limits in status.rate_limits.items():
        for name in sorted(limits.keys() & waiting):
            yield f"{name} waits, since it is limited to {limits[name]} at {worker}: flask tasks rate-limit {name} 0."


def _unpublished_tasks(status: SystemStatus) -> Iterator[str]:
    for tasks in status.jobs.waiting if status.jobs else ():
        if not tasks.published and _waits(status, tasks):
            wait = output.format_duration(status.at - tasks.since)
            yield f"{tasks.name} has been due for {wait}, but is not published: does a worker reconcile?"


def _beat(status: SystemStatus) -> Iterator[str]:
    if status.beat is False:
        yield "Beat is not running: no periodic task is sent."


def _overdue_tasks(status: SystemStatus) -> Iterator[str]:
    for entry in status.schedule or ():
        if entry.overdue and status.beat:
            last = output.format_time(entry.last_run_at)
            yield f"{entry.name} is sent, but has not succeeded since {last}: see the logs of the workers."


def _failing_tasks(status: SystemStatus) -> Iterator[str]:
    for name, tasks in status.jobs.recent.items() if status.jobs else ():
        if tasks.failed >= max(MIN_FAILURES, FAILURE_RATE_LIMIT * tasks.ended):
            counts, period = f"{tasks.failed} of the {tasks.ended}", "15 minutes"
        elif tasks.failed_in_hour == tasks.ended_in_hour >= MIN_ALL_FAILED:
            counts, period = f"All {tasks.ended_in_hour}", "an hour"
        else:
            continue
        yield f"{counts} tasks {name} that ended within {period} failed: flask tasks failures."


def _storages(status: SystemStatus) -> Iterator[str]:
    for program, reason in (status.without_storage or {}).items():
        yield f"{program}: {reason}"


def _dead_letters(status: SystemStatus) -> Iterator[str]:
    if status.dead_letters:
        yield f"Malformed messages: {status.dead_letters}; flask tasks dead-letters lists them."


RULES = (
    # Without one of these no job runs; /readyz reports them by name.
    Rule("database", Verdict.DOWN, True, _database),
    Rule("redis", Verdict.DOWN, True, _redis),
    Rule("worker", Verdict.DOWN, True, _worker, (REDIS,)),
    Rule("stalled_queue", Verdict.DEGRADED, True, _stalled_queues, (JOBS,)),
    Rule("failing_tasks", Verdict.DEGRADED, True, _failing_tasks, (JOBS,)),
    Rule("queue_without_consumer", Verdict.DEGRADED, True, _queues_without_consumers, (REDIS,)),
    Rule("storage", Verdict.DEGRADED, True, _storages, (REDIS,)),
    Rule("unpublished_tasks", Verdict.DEGRADED, True, _unpublished_tasks, (JOBS,)),
    Rule("paused_queue", Verdict.DEGRADED, False, _paused_queues, (REDIS,)),
    Rule("rate_limit", Verdict.DEGRADED, False, _rate_limits, (REDIS, JOBS)),
    Rule("slow_database", Verdict.DEGRADED, False, _slow_database, (DATABASE,)),
    Rule("silent_worker", Verdict.DEGRADED, False, _silent_workers, (REDIS,)),
    Rule("worker_without_processes", Verdict.DEGRADED, False, _workers_without_processes, (REDIS,)),
    Rule("outdated_worker", Verdict.DEGRADED, False, _outdated_workers, (REDIS,)),
    Rule("beat", Verdict.DEGRADED, False, _beat, (REDIS,)),
    Rule("overdue_task", Verdict.DEGRADED, False, _overdue_tasks, (REDIS,)),
    Rule("clock", Verdict.DEGRADED, False, _clocks, (REDIS, DATABASE)),
    Rule("dead_letters", Verdict.DEGRADED, False, _dead_letters, (REDIS,)),
)
