"""How the house stands, for a page: what `flask tasks status` finds, and its workers one by one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from flask import Flask

from microblog.monitoring import health
from microblog.monitoring.health import Health
from microblog.monitoring.workers import Facts
from microblog.taskqueue import states

TIMEOUT = 1.0  # seconds that a worker has to answer


@dataclass(frozen=True)
class Worker:
    """A worker. Of one that is silent, nothing is known but its name and when it was last seen."""

    name: str
    up: bool
    busy: int | None = None
    processes: int | None = None
    done: int | None = None
    uptime: timedelta | None = None
    queues: tuple[str, ...] = ()
    last_seen: datetime | None = None


@dataclass(frozen=True)
class House:
    """What one look found."""

    health: Health

    @property
    def workers(self) -> list[Worker]:
        """Those that are up, then those that are silent."""
        said = self.health.workers
        if said is None:
            return []
        silent = [Worker(name, up=False, last_seen=said.last_seen.get(name)) for name in said.silent]
        return [_worker(name, facts) for name, facts in said.up.items()] + silent

    @property
    def longest_queue(self) -> int:
        """The number of messages in it, at least 1: what the bars of all are measured by."""
        return max((queue.length for queue in self.health.queues or ()), default=0) or 1

    def unfinished(self, *wanted: str) -> int:
        """How many jobs are in one of these states."""
        figures = self.health.jobs
        return sum(sum(figures.unfinished[state].values()) for state in wanted) if figures else 0

    @property
    def waiting(self) -> int:
        """How many jobs have yet to begin."""
        return self.unfinished(states.PENDING)

    @property
    def running(self) -> int:
        """How many jobs are under way."""
        return self.unfinished(*states.RUNNING)

    @property
    def retrying(self) -> int:
        """How many jobs wait for another attempt."""
        return self.unfinished(states.RETRY)


def look(app: Flask) -> House:
    """Ask all; takes TIMEOUT if a worker is silent, else as long as the slowest answer, and never much longer."""
    return House(health.look(app, TIMEOUT))


def _worker(name: str, facts: Facts) -> Worker:
    stats: dict[str, Any] = facts["stats"]
    return Worker(
        name,
        up=True,
        busy=len(facts["active"]),
        processes=stats["pool"].get("max-concurrency"),
        done=sum(stats["total"].values()),
        uptime=timedelta(seconds=stats["uptime"]),
        queues=tuple(facts["queues"]),
    )
