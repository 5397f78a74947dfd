"""SystemStatus: its verdict, and one sentence for each problem."""

from __future__ import annotations

from typing import Any

from microblog.clock import utcnow
from microblog.monitoring.rules import Verdict
from microblog.monitoring.status import SystemStatus
from microblog.monitoring.workers import WorkerReplies


def status_with(pool: dict[str, Any]) -> SystemStatus:
    replies = WorkerReplies(up={"a@host": {"stats": {"pool": pool}, "queues": ["default"]}}, silent=[], last_seen={})
    return SystemStatus(at=utcnow(), workers=replies, unavailable={})


def test_worker_without_processes_degrades_status() -> None:
    assert status_with({"processes": [1, 2]}).verdict is Verdict.HEALTHY
    assert status_with({"max-concurrency": 4}).verdict is Verdict.HEALTHY  # a pool of threads

    status = status_with({"processes": []})

    assert status.verdict is Verdict.DEGRADED
    assert [problem.text for problem in status.problems] == ["a@host has no processes: flask tasks worker a@host grow."]


def test_summary_counts_processes_of_grown_pool() -> None:
    """Celery's prefork pool does not change max-concurrency when it grows or shrinks."""
    status = status_with({"max-concurrency": 2, "processes": [1, 2, 3, 4]})

    assert status.workers is not None
    assert [summary.concurrency for summary in status.workers.summaries()] == [4]
