"""Real incidents: every place that tells operators about the system comes to the same verdict."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sqlite3
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import make_url

from microblog.accounts.models import User
from microblog.extensions import db
from microblog.monitoring import rules, schedule, status
from microblog.monitoring.rules import RULES
from microblog.taskqueue import states
from tests.support.clients import PASSWORD, signed_in_client
from tests.support.cluster import Cluster, running_cluster
from tests.support.external import shifted_clock
from tests.support.programs import ScriptProcess
from tests.support.servers import TIMEOUT, Postgres, Worker, wait_for

TOKEN = "incidents-metrics-token"
CONSEQUENCES = {"overdue_task", "queue_without_consumer"}  # periodic tasks wait, too
INTERVALS = {"SWEEP_INTERVAL": "1", "ROLL_UP_INTERVAL": "1", "SEARCH_INTERVAL": "1"}

pytestmark = pytest.mark.exhaustive


@pytest.fixture(scope="module")
def cluster(
    base_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Cluster]:
    """A worker, and an operator."""
    environment = base_environment | INTERVALS | {"METRICS_TOKEN": TOKEN}
    with running_cluster(environment, tmp_path_factory.mktemp("cluster"), request) as cluster:
        cluster.start_worker()
        operator = User(username="olga", email="olga@example.com", password_hash="", is_operator=True)
        operator.set_password(PASSWORD)
        db.session.add(operator)
        db.session.commit()
        yield cluster


@pytest.fixture(scope="module")
def beat(cluster: Cluster) -> Iterator[ScriptProcess]:
    command = ["celery", "-A", "tests.support.worker_app", "beat"]
    beat = ScriptProcess(command, cluster.environment, stdout=cluster.folder / "beat.log")
    yield beat
    beat.stop(TIMEOUT)


@pytest.fixture
def worker(cluster: Cluster) -> Worker:
    return cluster.workers[0]


@pytest.fixture
def operator(cluster: Cluster) -> FlaskClient:
    user = db.session.scalars(db.select(User).filter_by(username="olga")).one()
    return signed_in_client(cluster.app, user)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch, cluster: Cluster, beat: ScriptProcess, operator: FlaskClient) -> None:
    """Problems count after a short time; each test begins with a healthy system."""
    monkeypatch.setattr(rules, "PATIENCE", timedelta(seconds=2))
    monkeypatch.setattr(status, "PATIENCE", timedelta(seconds=2))
    monkeypatch.setattr(schedule, "GRACE", timedelta(seconds=10))
    wait_for(lambda: verdicts(cluster, operator) == ({"healthy"}, set()), what="the system is healthy")


def verdicts(cluster: Cluster, operator: FlaskClient) -> tuple[set[str], set[str]]:
    """Return the verdicts of all places, which should be one, and the rules that found problems."""
    result = cluster.json("status", "--timeout", "5")
    page = operator.get("/admin/status")
    ready = cluster.app.test_client().get("/readyz")
    exported = cluster.app.test_client().get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"}).text
    problems = {
        sample.labels["rule"]: sample.value
        for family in text_string_to_metric_families(exported)
        for sample in family.samples
        if sample.name == "microblog_problems"
    }
    names = {rule.name for rule in RULES if problems.get(rule.name)}
    down = {rule.name for rule in RULES if rule.name in names and rule.verdict is rules.Verdict.DOWN}
    shown = re.search(r'class="verdict verdict-(\w+)"', page.text)
    found = {result["status"], "down" if down else "degraded" if names else "healthy"}
    found.add(shown[1] if shown else f"page {page.status_code}")
    if (ready.status_code == 503) != (found == {"down"}):
        found.add(f"readyz {ready.status_code}")
    return found, names if names == set(result["rules"]) else names ^ set(result["rules"])


def await_problem(cluster: Cluster, operator: FlaskClient, verdict: str, *found: str) -> None:
    """Wait until every place gives `verdict`, because these rules found something; others may find its consequences."""
    last: Any = None

    def agreed() -> bool:
        nonlocal last
        last = verdicts(cluster, operator)
        return bool(last[0] == {verdict} and set(found) <= last[1] <= {*found, *CONSEQUENCES})

    try:
        wait_for(agreed, what=f"{found} are found everywhere")
    except AssertionError as error:
        raise AssertionError(f"{error}; last: {last}") from None


@contextlib.contextmanager
def frozen(*pids: int) -> Iterator[None]:
    """Suspend processes during the block."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def locked(cluster: Cluster) -> Iterator[None]:
    """Refuse writes of others to the SQLite database during the block."""
    with contextlib.closing(
        sqlite3.connect(make_url(cluster.environment["DATABASE_URL"]).database or "")
    ) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield


def read_only(cluster: Cluster) -> contextlib.AbstractContextManager[None]:
    """Make the PostgreSQL database read-only during the block."""
    url = make_url(cluster.environment["DATABASE_URL"])
    return Postgres(int(url.port or 0)).read_only(str(url.database))


def test_frozen_children_are_found_by_waiting_jobs_and_periodic_tasks(
    cluster: Cluster, worker: Worker, operator: FlaskClient
) -> None:
    wait_for(
        lambda: all(entry["last_run_at"] for entry in cluster.json("schedule")), what="all periodic tasks have run"
    )
    with frozen(*worker.process.children()):
        job = cluster.launch("noop", queue="mail")
        await_problem(cluster, operator, "degraded", "stalled_queue")
        await_problem(cluster, operator, "degraded", "stalled_queue", "overdue_task")
    wait_for(lambda: cluster.state(job) == states.SUCCESS)


def test_frozen_worker_is_down(cluster: Cluster, worker: Worker, operator: FlaskClient) -> None:
    with worker.frozen():
        await_problem(cluster, operator, "down", "worker", "silent_worker")


def test_failing_tasks_are_found(cluster: Cluster, operator: FlaskClient) -> None:
    jobs = [cluster.launch("fail") for _ in range(6)]
    wait_for(lambda: {cluster.state(job) for job in jobs} == {states.FAILURE})

    await_problem(cluster, operator, "degraded", "failing_tasks")

    db.session.execute(db.text("DELETE FROM task WHERE state = 'FAILURE'"))
    db.session.commit()


@pytest.mark.parametrize(
    ("begin", "end", "rule"),
    [
        (("pause", "mail"), ("resume", "mail"), "paused_queue"),
        (("worker", "NAME", "stop-consuming", "mail"), ("worker", "NAME", "consume", "mail"), "queue_without_consumer"),
        (("rate-limit", "noop", "1/h"), ("rate-limit", "noop", "0"), "rate_limit"),
    ],
    ids=["pause", "stop-consuming", "rate-limit"],
)
def test_forgotten_command_is_found(
    cluster: Cluster, worker: Worker, operator: FlaskClient, begin: tuple[str, ...], end: tuple[str, ...], rule: str
) -> None:
    def run(command: tuple[str, ...]) -> None:
        result = cluster.run(*[worker.name if word == "NAME" else word for word in command], "--timeout", "60")
        assert result.exit_code == 0, result.output

    run(begin)
    jobs = [cluster.launch("noop", queue="mail") for _ in range(3)]
    try:
        await_problem(cluster, operator, "degraded", rule)
    finally:
        run(end)
        if rule == "rate_limit":  # Celery keeps the tasks that it has already delayed until their time
            for job in jobs:
                cluster.run("cancel", job, "--yes")
            worker.stop()
            cluster.workers.remove(worker)
            cluster.start_worker()


def test_malformed_message_is_found(cluster: Cluster, operator: FlaskClient) -> None:
    client = cluster.app.extensions["redis"]
    client.lpush(client.key("default"), "this is no message")

    await_problem(cluster, operator, "degraded", "dead_letters")

    assert cluster.run("dead-letters", "--delete").exit_code == 0


@pytest.mark.parametrize("kind", ["OOM", "READONLY"])
def test_redis_that_refuses_is_down(cluster: Cluster, operator: FlaskClient, kind: str) -> None:
    with cluster.redis_server.refusing(kind):
        await_problem(cluster, operator, "down", "redis")


def test_database_that_refuses_writes_is_down(cluster: Cluster, operator: FlaskClient) -> None:
    refusing = locked if cluster.environment["DATABASE_URL"].startswith("sqlite") else read_only
    with refusing(cluster):
        await_problem(cluster, operator, "down", "database")


def test_frozen_beat_is_found(cluster: Cluster, operator: FlaskClient, beat: ScriptProcess) -> None:
    with frozen(beat.pid):
        await_problem(cluster, operator, "degraded", "beat")


def test_clock_of_a_worker_is_found(cluster: Cluster, operator: FlaskClient) -> None:
    other = cluster.start_worker("-Q", "mail", concurrency=1, **shifted_clock("+60s"))
    try:
        await_problem(cluster, operator, "degraded", "clock")
    finally:
        other.stop()


def test_older_worker_is_found(cluster: Cluster, operator: FlaskClient, tmp_path: Path) -> None:
    log = tmp_path / "old.log"
    command = ["celery", "-A", "tests.support.old_release", "worker", "--hostname", "old@tests", "--concurrency", "1"]
    old = ScriptProcess([*command, "--without-gossip", "--without-mingle"], cluster.environment, stdout=log)
    try:
        await_problem(cluster, operator, "degraded", "outdated_worker")
    finally:
        old.stop(TIMEOUT)
