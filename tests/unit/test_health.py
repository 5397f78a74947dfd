"""What is found at one look makes a verdict, with a sentence for each trouble."""

from __future__ import annotations

from typing import Any

from microblog.clock import utcnow
from microblog.monitoring.status import SystemStatus, Verdict
from microblog.monitoring.workers import WorkerReplies


def health(pool: dict[str, Any]) -> SystemStatus:
    answers = WorkerReplies(up={"a@host": {"stats": {"pool": pool}, "queues": ["default"]}}, silent=[], last_seen={})
    return SystemStatus(at=utcnow(), workers=answers, queues=[], schedule=[], jobs=None, away={})


def test_a_worker_without_processes_is_no_healthy_one() -> None:
    assert health({"processes": [1, 2]}).verdict is Verdict.HEALTHY
    assert health({"max-concurrency": 4}).verdict is Verdict.HEALTHY  # a pool of threads

    found = health({"processes": []})

    assert found.verdict is Verdict.DEGRADED
    assert found.problems == ["a@host has no processes: flask tasks worker a@host grow."]
