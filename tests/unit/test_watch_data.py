"""The data of `flask tasks watch`: its snapshot after events from Redis and results of queries from the database."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from microblog.clock import utcnow
from microblog.monitoring.events import CHANGE, PROGRESS
from microblog.monitoring.status import SystemStatus
from microblog.monitoring.watch import screen_data
from microblog.monitoring.watch.reader import JobQuery, JobQueryResult
from microblog.monitoring.watch.screen_data import ScreenData
from microblog.monitoring.watch.snapshot import Counts, JobLine, Snapshot
from microblog.monitoring.workers import WorkerReplies
from microblog.taskqueue import states

JOB = JobLine("job", "export_posts", state=states.STARTED, steps=2, changed_at=utcnow() - timedelta(minutes=1))
FREQUENCY = 300  # seconds between two heartbeats; a worker counts as silent after twice this time
SILENCE = 1000  # seconds


class Watched:
    """Data at the time `now`; counts how often the screen is drawn and the Task table is read."""

    def __init__(self, now: float) -> None:
        self.draws = self.reads = 0
        self._now = now
        self.data = ScreenData(self._draw, self._request_read)

    def _draw(self) -> None:
        self.draws += 1

    def _request_read(self) -> None:
        self.reads += 1

    def receive(self, kind: str, ago: float = 0, **fields: Any) -> None:
        at = self._now - ago
        self.data.handle_event({"type": kind, "timestamp": at, "local_received": at, "clock": 1, **fields})

    def heartbeat(self, name: str = "w@h", ago: float = 0) -> None:
        fields: dict[str, Any] = {"active": 1, "processed": 7, "loadavg": [0.5, 0, 0], "pid": 1}
        self.receive("worker-heartbeat", ago, hostname=name, freq=FREQUENCY, **fields)

    def start_task(self, task_id: str, ago: float) -> None:
        self.receive("task-received", ago, uuid=task_id, hostname="w@h", name="sweep", root_id=task_id, pid=1)
        self.receive("task-started", ago, uuid=task_id, hostname="w@h", pid=1)

    def read(
        self, *jobs: JobLine, checked: frozenset[str] = frozenset(), with_row: frozenset[str] = frozenset()
    ) -> None:
        self.data.store_result(
            JobQueryResult(JobQuery(maybe_without_row=checked), list(jobs), Counts(), None, with_row)
        )

    def store_replies(self, replies: WorkerReplies) -> None:
        self.data.store_status(SystemStatus(utcnow(), {}, workers=replies))

    def snapshot(self) -> Snapshot:
        return self.data.snapshot(JobQuery())

    def job_ids(self) -> list[str]:
        return [job.id for job in self.snapshot().jobs or ()]


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    """Data with a fixed clock. Celery's clock, which decides which worker is silent, keeps running."""
    now = time.time()
    monkeypatch.setattr(screen_data, "time", SimpleNamespace(time=lambda: now, monotonic=lambda: now))
    return Watched(now)


def test_progress_event_updates_percent_without_reading(watched: Watched) -> None:
    watched.read(JOB)

    watched.receive(PROGRESS, root_id="job", position=0, state="PROGRESS", current=3, total=4, percent=75, message="")

    [line] = watched.snapshot().jobs or []
    assert (line.state, line.percent, watched.reads) == ("PROGRESS", 75, 0)


def test_state_change_is_shown_and_requests_reading(watched: Watched) -> None:
    watched.read(JOB)

    watched.receive(CHANGE, root_id="job", position=0, state="FAILURE")

    [line] = watched.snapshot().jobs or []
    assert (line.state, watched.reads) == ("FAILURE", 1)


def test_worker_is_silent_without_heartbeats(watched: Watched) -> None:
    watched.heartbeat("up@h")
    watched.heartbeat("frozen@h", ago=SILENCE)

    silent, up = watched.snapshot().workers

    assert (silent.name, silent.alive, up.name, up.alive) == ("frozen@h", False, "up@h", True)
    assert (up.active, up.processed, up.load) == (1, 7, 0.5)


def test_offline_worker_is_removed(watched: Watched) -> None:
    watched.heartbeat()
    watched.receive("worker-offline", hostname="w@h")

    assert watched.snapshot().workers == []


def test_worker_replies_count_before_first_event(watched: Watched) -> None:
    stats = {"pool": {"max-concurrency": 4}, "total": {"a": 2, "b": 3}}
    last_seen = datetime(2026, 1, 1, tzinfo=UTC)
    watched.store_replies(WorkerReplies({"up@h": {"stats": stats, "active": [{}]}}, ["gone@h"], {"gone@h": last_seen}))

    gone, up = watched.snapshot().workers

    assert (gone.name, gone.alive, gone.last_seen) == ("gone@h", False, last_seen)
    assert (up.name, up.alive, up.active, up.processed, up.concurrency) == ("up@h", True, 1, 5, 4)


def test_grown_pool_is_shown_with_its_processes(watched: Watched) -> None:
    stats = {"pool": {"max-concurrency": 2, "processes": [1, 2, 3, 4]}}
    watched.heartbeat("heard@h")
    watched.store_replies(WorkerReplies({"heard@h": {"stats": stats}, "up@h": {"stats": stats}}, [], {}))

    assert [(worker.name, worker.concurrency) for worker in watched.snapshot().workers] == [("heard@h", 4), ("up@h", 4)]


def test_silent_worker_no_longer_expected_is_removed(watched: Watched) -> None:
    watched.heartbeat(ago=SILENCE)
    watched.store_replies(WorkerReplies({}, [], {}))

    assert watched.snapshot().workers == []


def test_task_without_row_is_shown_after_reading(watched: Watched) -> None:
    watched.heartbeat()
    watched.start_task("bare", ago=5)
    watched.read(JOB)
    assert watched.job_ids() == ["job"], "it may have a row"

    watched.read(JOB, checked=watched.data.running_tasks())
    assert watched.job_ids() == ["job", "bare"]

    watched.read(JOB, checked=frozenset({"bare"}), with_row=frozenset({"bare"}))
    assert watched.job_ids() == ["job"]


def test_task_just_started_is_not_listed(watched: Watched) -> None:
    watched.heartbeat()
    watched.start_task("brief", ago=0)

    assert watched.data.running_tasks() == frozenset()


def test_running_tasks_are_shown_during_database_outage(watched: Watched) -> None:
    watched.data.set_database_error("refused")
    watched.heartbeat()
    watched.start_task("bare", ago=5)

    assert watched.job_ids() == ["bare"]


def test_pace_counts_tasks_ended_in_last_minute(watched: Watched) -> None:
    for kind in ("task-succeeded", "task-succeeded", "task-failed"):
        watched.receive(kind, uuid="x", hostname="w@h", pid=1)

    snapshot = watched.snapshot()
    assert (snapshot.succeeded, snapshot.failed, sum(snapshot.throughput), len(snapshot.throughput)) == (2, 1, 3, 12)


def test_outage_lasts_from_first_error_to_recovery(watched: Watched) -> None:
    watched.data.set_redis_error("refused")
    since = watched.snapshot().redis.since
    watched.data.set_redis_error("refused")
    assert (watched.snapshot().redis.unavailable, watched.snapshot().redis.since) == (True, since)

    watched.data.set_redis_error(None)
    assert not watched.snapshot().redis.unavailable


def test_each_update_redraws_screen(watched: Watched) -> None:
    watched.read(JOB)
    watched.heartbeat()
    watched.data.store_queues([])

    assert watched.draws == 3
