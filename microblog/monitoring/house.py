"""Workers, queues and schedule at one look, for a page: it never waits long, and says so where there is no answer."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta

from kombu.exceptions import OperationalError as BrokerAway
from redis.exceptions import RedisError

from microblog.monitoring import queues, schedule, workers
from microblog.monitoring.queues import Measured
from microblog.monitoring.schedule import Entry
from microblog.monitoring.workers import Facts

logger = logging.getLogger(__name__)

TIMEOUT = 1.0  # seconds that a worker has to answer


@dataclass(frozen=True)
class Worker:
    """A worker: `busy` and `processes` are None, and `queues` empty, if it is silent."""

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
    """What was seen; `answers` is false if Redis does not, and then there is nothing else."""

    answers: bool
    workers: list[Worker]
    queues: list[Measured]
    schedule: list[Entry]
    beat: bool

    @property
    def longest(self) -> int:
        """The length of the longest queue, at least 1: what the bars of all are measured by."""
        return max([queue.length for queue in self.queues], default=0) or 1


def look() -> House:
    """Ask all; takes TIMEOUT if a worker is silent, else as long as the slowest answer."""
    try:
        said = workers.ask(TIMEOUT)
        up = [_worker(name, facts) for name, facts in said.up.items()]
        silent = [Worker(name, up=False, last_seen=said.last_seen.get(name)) for name in said.silent]
        return House(True, up + silent, queues.measure(said), schedule.entries(), schedule.beat_is_there())
    except (RedisError, BrokerAway):
        logger.warning("Redis is away: nothing to show of workers and queues", exc_info=True)
        return House(False, [], [], [], False)


def _worker(name: str, facts: Facts) -> Worker:
    stats = facts["stats"]
    return Worker(
        name,
        up=True,
        busy=len(facts["active"]),
        processes=stats["pool"].get("max-concurrency"),
        done=sum(stats["total"].values()),
        uptime=timedelta(seconds=stats["uptime"]),
        queues=tuple(facts["queues"]),
    )
