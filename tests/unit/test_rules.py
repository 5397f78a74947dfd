"""The rules that tell whether the system is healthy."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from microblog.monitoring.job_queries import TaskOutcomes, WaitingTasks
from microblog.monitoring.queues import QueueStats
from microblog.monitoring.rules import PATIENCE, RULES, Verdict
from microblog.monitoring.schedule import ScheduleEntry
from microblog.monitoring.status import JobSummary, SystemStatus
from microblog.monitoring.workers import WorkerReplies
from tests.support.programs import ROOT

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
LONG_AGO, RECENTLY = NOW - 2 * PATIENCE, NOW - PATIENCE / 2

REPLY = {
    "stats": {"pool": {"processes": [1, 2], "max-concurrency": 2}},
    "queues": ["exports"],
}


def jobs(**changed: Any) -> JobSummary:
    summary = JobSummary(unfinished={}, ended=0, failed=0, oldest_waiting=None, waiting=[], active_queues=[], recent={})
    return replace(summary, **changed)


def workers(silent: tuple[str, ...] = (), **changed: Any) -> WorkerReplies:
    return WorkerReplies(up={"one@host": REPLY | changed}, silent=list(silent), last_seen={})


def queue(length: int, *, consumers: int = 1, paused: bool = False) -> QueueStats:
    return QueueStats("exports", length, None, consumers, paused)


def waits(since: datetime, *, published: bool = True) -> WaitingTasks:
    return WaitingTasks("exports", "export_posts", published, since)


HEALTHY = SystemStatus(
    at=NOW,
    unavailable={},
    workers=workers(),
    queues=[queue(3)],
    schedule=[ScheduleEntry("roll_up", "roll_up", 60.0)],
    beat=True,
    dead_letters=0,
    jobs=jobs(),
    clocks={"one@host": 0.5, "Redis": -0.5, "this machine": 0.0},
)
LIMITED = {"rate_limits": {"one@host": {"export_posts": "1/h"}}}
NO_PROCESSES = {"pool": {"processes": [], "max-concurrency": 2}}

INCIDENTS: dict[str, tuple[dict[str, Any], str]] = {
    "database away": (
        {"unavailable": {"database": "It is away.", "jobs": "It is away."}, "jobs": None},
        "database",
    ),
    "database slow": ({"unavailable": {"jobs": "It does not respond in time."}, "jobs": None}, "slow_database"),
    "Redis refuses": ({"unavailable": {"redis": "It refuses."}, "workers": None, "queues": None}, "redis"),
    "no worker": ({"workers": WorkerReplies({}, [], {})}, "worker"),
    "children frozen": ({"jobs": jobs(waiting=[waits(LONG_AGO)])}, "stalled_queue"),
    "disk full": ({"jobs": jobs(recent={"export_posts": TaskOutcomes(9, 9, 9, 9)})}, "failing_tasks"),
    "disk full on a small site": ({"jobs": jobs(recent={"export_posts": TaskOutcomes(1, 1, 3, 3)})}, "failing_tasks"),
    "queue without consumer": (
        {"queues": [queue(3, consumers=0)], "jobs": jobs(waiting=[waits(LONG_AGO)])},
        "queue_without_consumer",
    ),
    "reconcile stopped": ({"jobs": jobs(waiting=[waits(LONG_AGO, published=False)])}, "unpublished_tasks"),
    "pause forgotten": (
        {"queues": [queue(3, paused=True, consumers=0)], "jobs": jobs(waiting=[waits(LONG_AGO)])},
        "paused_queue",
    ),
    "rate limit forgotten": ({"jobs": jobs(waiting=[waits(LONG_AGO)])} | LIMITED, "rate_limit"),
    "worker frozen": ({"workers": workers(silent=("two@host",))}, "silent_worker"),
    "pool empty": ({"workers": workers(stats=NO_PROCESSES)}, "worker_without_processes"),
    "old worker": ({"unknown_tasks": {"one@host": ["export_posts"]}}, "outdated_worker"),
    "beat dead": ({"beat": False}, "beat"),
    "periodic tasks do not run": (
        {"schedule": [ScheduleEntry("roll_up", "roll_up", 60.0, last_run_at=LONG_AGO, overdue=True)]},
        "overdue_task",
    ),
    "clock drift": ({"clocks": {"one@host": -60.0}}, "clock"),
    "storage not shared": ({"without_storage": {"web server a": "It is another one."}}, "storage"),
    "dead letters": ({"dead_letters": 1}, "dead_letters"),
}


@pytest.mark.parametrize("incident", INCIDENTS)
def test_incident_is_found_by_one_rule(incident: str) -> None:
    changed, expected = INCIDENTS[incident]

    status = replace(HEALTHY, **changed)

    assert {problem.rule.name for problem in status.problems} == {expected}
    assert status.verdict is status.problems[0].rule.verdict is not Verdict.HEALTHY
    assert all(problem.text[-1] in ".?" for problem in status.problems)


def test_every_rule_has_an_incident() -> None:
    assert {rule.name for rule in RULES} == {expected for _changed, expected in INCIDENTS.values()}


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"jobs": jobs(waiting=[waits(LONG_AGO)], active_queues=["exports"]), "queues": [queue(10_000)]},
        {"jobs": jobs(waiting=[waits(RECENTLY), waits(RECENTLY, published=False)])},
        {"jobs": jobs(waiting=[waits(NOW + timedelta(hours=1))])},
        {
            "jobs": jobs(
                recent={"export_posts": TaskOutcomes(4, 4, 9, 4), "email_export": TaskOutcomes(1000, 99, 4000, 99)}
            )
        },
        {"queues": [queue(0, paused=True, consumers=0)]},
        LIMITED,
        {"schedule": [ScheduleEntry("roll_up", "roll_up", 60.0, last_run_at=RECENTLY)]},
    ],
    ids=["idle", "flood", "short wait", "retry later", "few failures", "empty queue paused", "rate limit", "task ran"],
)
def test_nothing_is_found_while_jobs_run(changed: dict[str, Any]) -> None:
    status = replace(HEALTHY, **changed)

    assert (status.problems, status.verdict) == ([], Verdict.HEALTHY)


def test_rules_without_their_service_are_unknown() -> None:
    status = replace(HEALTHY, unavailable={"redis": "It is away."}, clocks={"this machine": 60.0})

    unknown = {rule.name for rule in RULES if not rule.is_known(status)}

    assert {"worker", "beat", "paused_queue", "clock"} <= unknown
    assert not unknown & {"database", "redis", "failing_tasks", "stalled_queue"}
    assert [problem.rule.name for problem in status.problems] == ["redis"]


def test_documentation_lists_every_rule() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (yes|no)(, down)? \|", text, re.M)

    assert rows == [
        (rule.name, "yes" if rule.urgent else "no", ", down" if rule.verdict is Verdict.DOWN else "") for rule in RULES
    ]
