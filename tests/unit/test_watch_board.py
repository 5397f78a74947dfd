"""What `flask tasks watch` makes of what it hears and reads."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from microblog.clock import utcnow
from microblog.monitoring.events import CHANGE, PROGRESS
from microblog.monitoring.watch import board as module
from microblog.monitoring.watch.board import Board
from microblog.monitoring.watch.reader import Reading, Wanted
from microblog.monitoring.watch.snapshot import Counts, JobLine, Snapshot
from microblog.monitoring.workers import WorkerReplies
from microblog.taskqueue import states

JOB = JobLine("job", "export_posts", state=states.STARTED, steps=2, changed_at=utcnow() - timedelta(minutes=1))
FREQUENCY = 300  # seconds between two heartbeats; a worker is silent after twice as long
SILENCE = 1000  # seconds


class Watched:
    """A board, and what it asked for, at the time `now`."""

    def __init__(self, now: float) -> None:
        self.woken = self.reads = 0
        self._now = now
        self.board = Board(self._wake, self._stale)

    def _wake(self) -> None:
        self.woken += 1

    def _stale(self) -> None:
        self.reads += 1

    def hear(self, kind: str, ago: float = 0, **facts: Any) -> None:
        at = self._now - ago
        self.board.hear({"type": kind, "timestamp": at, "local_received": at, "clock": 1, **facts})

    def heartbeat(self, name: str = "w@h", ago: float = 0) -> None:
        facts: dict[str, Any] = {"active": 1, "processed": 7, "loadavg": [0.5, 0, 0], "pid": 1}
        self.hear("worker-heartbeat", ago, hostname=name, freq=FREQUENCY, **facts)

    def start_task(self, task_id: str, ago: float) -> None:
        self.hear("task-received", ago, uuid=task_id, hostname="w@h", name="sweep", root_id=task_id, pid=1)
        self.hear("task-started", ago, uuid=task_id, hostname="w@h", pid=1)

    def read(self, *jobs: JobLine, asked: frozenset[str] = frozenset(), with_row: frozenset[str] = frozenset()) -> None:
        self.board.read(Reading(Wanted(maybe_without_row=asked), list(jobs), Counts(), None, with_row))

    def seen(self) -> Snapshot:
        return self.board.snapshot(Wanted())

    def job_ids(self) -> list[str]:
        return [job.id for job in self.seen().jobs or ()]


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    """A board whose clock stands still; that of Celery, which tells who is silent, goes on."""
    now = time.time()
    monkeypatch.setattr(module, "time", SimpleNamespace(time=lambda: now, monotonic=lambda: now))
    return Watched(now)


def test_progress_moves_a_bar_without_asking_the_database(watched: Watched) -> None:
    watched.read(JOB)

    watched.hear(PROGRESS, root_id="job", position=0, state="PROGRESS", current=3, total=4, percent=75, message="")

    [line] = watched.seen().jobs or []
    assert (line.state, line.percent, watched.reads) == ("PROGRESS", 75, 0)


def test_a_change_of_state_shows_at_once_and_has_the_table_read(watched: Watched) -> None:
    watched.read(JOB)

    watched.hear(CHANGE, root_id="job", position=0, state="FAILURE")

    [line] = watched.seen().jobs or []
    assert (line.state, watched.reads) == ("FAILURE", 1)


def test_a_worker_is_up_by_its_heartbeats_and_silent_without(watched: Watched) -> None:
    watched.heartbeat("up@h")
    watched.heartbeat("frozen@h", ago=SILENCE)

    silent, up = watched.seen().workers

    assert (silent.name, silent.alive, up.name, up.alive) == ("frozen@h", False, "up@h", True)
    assert (up.active, up.processed, up.load) == (1, 7, 0.5)


def test_a_worker_that_says_goodbye_is_gone(watched: Watched) -> None:
    watched.heartbeat()
    watched.hear("worker-offline", hostname="w@h")

    assert watched.seen().workers == []


def test_workers_that_were_asked_count_before_they_are_heard(watched: Watched) -> None:
    stats = {"pool": {"max-concurrency": 4}, "total": {"a": 2, "b": 3}}
    last_seen = datetime(2026, 1, 1, tzinfo=UTC)
    watched.board.asked(WorkerReplies({"up@h": {"stats": stats, "active": [{}]}}, ["gone@h"], {"gone@h": last_seen}))

    gone, up = watched.seen().workers

    assert (gone.name, gone.alive, gone.heard_at) == ("gone@h", False, last_seen)
    assert (up.name, up.alive, up.active, up.processed, up.concurrency) == ("up@h", True, 1, 5, 4)


def test_a_silent_worker_that_nobody_expects_any_more_is_forgotten(watched: Watched) -> None:
    watched.heartbeat(ago=SILENCE)
    watched.board.asked(WorkerReplies({}, [], {}))

    assert watched.seen().workers == []


def test_a_task_without_a_row_is_shown_once_the_table_was_asked(watched: Watched) -> None:
    watched.heartbeat()
    watched.start_task("bare", ago=5)
    watched.read(JOB)
    assert watched.job_ids() == ["job"], "it may have one"

    watched.read(JOB, asked=watched.board.running_tasks())
    assert watched.job_ids() == ["job", "bare"]

    watched.read(JOB, asked=frozenset({"bare"}), with_row=frozenset({"bare"}))
    assert watched.job_ids() == ["job"]


def test_a_task_that_has_just_begun_is_not_worth_a_line(watched: Watched) -> None:
    watched.heartbeat()
    watched.start_task("brief", ago=0)

    assert watched.board.running_tasks() == frozenset()


def test_what_workers_run_is_shown_while_the_database_is_away(watched: Watched) -> None:
    watched.board.database_is("refused")
    watched.heartbeat()
    watched.start_task("bare", ago=5)

    assert watched.job_ids() == ["bare"]


def test_the_pace_counts_what_ended_in_the_last_minute(watched: Watched) -> None:
    for kind in ("task-succeeded", "task-succeeded", "task-failed"):
        watched.hear(kind, uuid="x", hostname="w@h", pid=1)

    seen = watched.seen()
    assert (seen.succeeded, seen.failed, sum(seen.pace), len(seen.pace)) == (2, 1, 3, 12)


def test_a_part_is_away_since_it_was_first_missed_until_it_answers(watched: Watched) -> None:
    watched.board.redis_is("refused")
    since = watched.seen().redis.since
    watched.board.redis_is("refused")
    assert (watched.seen().redis.away, watched.seen().redis.since) == (True, since)

    watched.board.redis_is(None)
    assert not watched.seen().redis.away


def test_each_news_wakes_the_screen(watched: Watched) -> None:
    watched.read(JOB)
    watched.heartbeat()
    watched.board.measured([])

    assert watched.woken == 3
