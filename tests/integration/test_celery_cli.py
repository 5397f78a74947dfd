"""Celery's own commands and an unmodified Flower work with this application as documented."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from microblog.taskqueue import states
from tests.support import programs
from tests.support.cluster import Cluster
from tests.support.servers import TIMEOUT, Worker, free_port, wait_for

CELERY = ["celery", "-A", "celery_app"]
TIMEOUT_OPTION = ("--timeout", "60")  # for an expected reply, which arrives sooner unless the machine is busy


@pytest.fixture(scope="module")
def worker(cluster: Cluster) -> Worker:
    return cluster.start_worker()


def celery(cluster: Cluster, *arguments: str) -> subprocess.CompletedProcess[str]:
    return programs.run([*CELERY, *arguments], cluster.environment)


def reply_of(cluster: Cluster, worker: Worker, *arguments: str) -> Any:
    """Run a Celery command with --json for one worker, and return its reply."""
    program, *rest = arguments
    done = celery(cluster, program, *TIMEOUT_OPTION, "--destination", worker.name, "--json", *rest)
    assert done.returncode == 0, done.stderr
    reply = json.loads(done.stdout.splitlines()[0])
    if isinstance(reply, list):  # `control` prints a list of replies, `inspect` one object
        [reply] = reply
    return reply[worker.name]


class TestInspect:
    def test_active_queues_and_registered(self, cluster: Cluster, worker: Worker, release_file: Path) -> None:
        counting = cluster.launch("count", str(release_file))
        wait_for(lambda: cluster.state(counting) == states.PROGRESS)

        # The worker may learn that the task has started only after the first progress is stored.
        wait_for(lambda: [task["id"] for task in reply_of(cluster, worker, "inspect", "active")] == [counting])
        replies = {name: reply_of(cluster, worker, "inspect", name) for name in ("active_queues", "registered")}

        assert {queue["name"] for queue in replies["active_queues"]} == {"exports", "mail", "default"}
        assert "sweep_archives" in replies["registered"]

    @pytest.mark.parametrize("command", ["reserved", "scheduled", "revoked"])
    def test_other_lists_are_empty(self, cluster: Cluster, worker: Worker, command: str) -> None:
        listed = reply_of(cluster, worker, "inspect", command)

        # Workers remember the tasks that other tests have revoked.
        assert [task for task in listed if command != "revoked" or cluster.state(task) != states.REVOKED] == []

    @pytest.mark.exhaustive
    def test_stats_ping_conf_clock_and_report(self, cluster: Cluster, worker: Worker) -> None:
        assert reply_of(cluster, worker, "inspect", "stats")["pool"]["max-concurrency"] == 2
        assert reply_of(cluster, worker, "inspect", "ping") == {"ok": "pong"}
        assert reply_of(cluster, worker, "inspect", "conf")["task_acks_late"] is True
        assert reply_of(cluster, worker, "inspect", "clock")["clock"] > 0
        assert "celery:5" in reply_of(cluster, worker, "inspect", "report")["ok"]

    def test_query_task_finds_running_task(self, cluster: Cluster, worker: Worker, release_file: Path) -> None:
        counting = cluster.launch("count", str(release_file))
        wait_for(lambda: cluster.state(counting) == states.PROGRESS)

        wait_for(lambda: reply_of(cluster, worker, "inspect", "query_task", counting)[counting][0] == "active")

    def test_status_lists_workers(self, cluster: Cluster, worker: Worker) -> None:
        def online() -> str:
            """Return the output, or an empty string if no worker replied within the timeout."""
            status = celery(cluster, "status", "--timeout", "1")
            return status.stdout if status.returncode == 0 else ""

        printed = wait_for(online, what="the worker replies in time")

        assert worker.name in printed
        assert "1 node online" in printed

    @pytest.mark.exhaustive
    def test_ping_fails_without_reply(self, cluster: Cluster, worker: Worker) -> None:
        result = celery(cluster, "inspect", "ping", "--timeout", "0.3", "--destination", "nobody@nowhere")

        assert result.returncode == 69
        assert "No nodes replied within time constraint" in result.stderr


@pytest.mark.exhaustive
class TestControl:
    def test_pool_is_resized_and_restarted(self, cluster: Cluster, worker: Worker) -> None:
        wait_for(lambda: not cluster.redis_server.in_flight(), what="the processes are idle")
        assert reply_of(cluster, worker, "control", "pool_grow", "1") == {"ok": "pool will grow"}
        wait_for(lambda: cluster.worker(worker)["concurrency"] == 3)
        assert reply_of(cluster, worker, "control", "pool_shrink", "1") == {"ok": "pool will shrink"}
        wait_for(lambda: cluster.worker(worker)["concurrency"] == 2)
        assert reply_of(cluster, worker, "control", "pool_restart") == {"ok": "reload started"}
        assert "Autoscale not enabled" in reply_of(cluster, worker, "control", "autoscale", "3", "1")["error"]

    def test_consumers_are_cancelled_and_added(self, cluster: Cluster, worker: Worker) -> None:
        reply_of(cluster, worker, "control", "cancel_consumer", "mail")
        wait_for(lambda: cluster.worker(worker)["queues"] == ["default", "exports"])
        reply_of(cluster, worker, "control", "add_consumer", "mail")
        wait_for(lambda: cluster.worker(worker)["queues"] == ["default", "exports", "mail"])

    def test_rate_and_time_limits_apply(self, cluster: Cluster, worker: Worker, release_file: Path) -> None:
        assert "ok" in reply_of(cluster, worker, "control", "rate_limit", "noop", "7/s")
        assert "ok" in reply_of(cluster, worker, "control", "time_limit", "count", "1", "60")
        [noop] = [task for task in cluster.json("registered", *TIMEOUT_OPTION) if task["name"] == "noop"]
        counting = cluster.launch("count", str(release_file))

        wait_for(lambda: cluster.state(counting) == states.FAILURE)

        assert noop["rate_limit"] == "7/s"
        reply_of(cluster, worker, "control", "rate_limit", "noop", "0")
        reply_of(cluster, worker, "control", "time_limit", "count", "3300", "3600")

    def test_revoked_task_does_not_run(self, cluster: Cluster, worker: Worker) -> None:
        cluster.run("pause", "mail", *TIMEOUT_OPTION)
        waiting = cluster.launch("noop", queue="mail")

        assert "flagged as revoked" in reply_of(cluster, worker, "control", "revoke", waiting)["ok"]

        cluster.run("resume", "mail", *TIMEOUT_OPTION)
        wait_for(lambda: cluster.state(waiting) == states.REVOKED)

    def test_terminated_task_is_revoked(self, cluster: Cluster, worker: Worker, release_file: Path) -> None:
        counting = cluster.launch("count", str(release_file))
        wait_for(lambda: cluster.state(counting) == states.PROGRESS)

        reply_of(cluster, worker, "control", "terminate", "SIGTERM", counting)

        wait_for(lambda: cluster.state(counting) == states.REVOKED)

    def test_task_events_are_enabled_by_default(self, cluster: Cluster, worker: Worker) -> None:
        assert reply_of(cluster, worker, "control", "enable_events") == {"ok": "task events already enabled"}

    def test_shutdown_stops_worker(self, cluster: Cluster, worker: Worker) -> None:
        leaving = cluster.start_worker("-Q", "mail", concurrency=1)

        celery(cluster, "control", "--timeout", "1", "--destination", leaving.name, "shutdown")

        assert leaving.process.wait(TIMEOUT) == 0

    def test_called_task_stores_its_result(self, cluster: Cluster, worker: Worker) -> None:
        task_id = celery(cluster, "call", "echo", "--args", "[7]").stdout.strip()

        assert len(task_id) == 36
        result = wait_for(lambda: celery(cluster, "result", task_id).stdout)
        assert json.loads(result.replace("'", '"')) == {"args": [7], "name": ""}


@pytest.mark.exhaustive
def test_events_command_prints_task_lifecycle(cluster: Cluster, worker: Worker, tmp_path: Path) -> None:
    printed = tmp_path / "events"
    printed.touch()

    def is_printed(event: str, job: str) -> bool:
        return any(event in line and job in line for line in printed.read_text().splitlines())

    dump = programs.ScriptProcess([*CELERY, "events", "--dump"], cluster.environment, stdout=printed)
    try:
        wait_for(lambda: worker.name in printed.read_text(), what="the heartbeat of the worker")
        job = cluster.launch("noop")

        for event in ("task received", "task started", "task succeeded"):
            wait_for(partial(is_printed, event, job), what=event)
    finally:
        dump.terminate()
        dump.wait(TIMEOUT)


@pytest.fixture(scope="module")
def flower(cluster: Cluster, worker: Worker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an unmodified Flower that runs with this application."""
    port = free_port()
    log = tmp_path_factory.mktemp("flower") / "log"
    program = programs.ScriptProcess(
        [*CELERY, "flower", f"--port={port}", "--address=127.0.0.1", "--inspect_timeout=60000"],
        cluster.environment | {"FLOWER_UNAUTHENTICATED_API": "true"},
        stdout=log,
    )
    address = f"http://127.0.0.1:{port}"
    wait_for(lambda: answers(f"{address}/healthcheck"), what="Flower answers")
    wait_for(
        lambda: ask(f"{address}/api/workers?status=1").get(worker.name), what="Flower receives the worker's events"
    )
    yield address
    program.kill()  # SIGTERM would make it wait for workers that no longer reply


@pytest.mark.exhaustive
class TestFlower:
    def test_workers_are_shown(self, flower: str, worker: Worker) -> None:
        details = wait_for(lambda: worker_details(flower, worker), what="the worker has replied to Flower")

        assert details["stats"]["pool"]["max-concurrency"] == 2
        assert {queue["name"] for queue in details["active_queues"]} == {"exports", "mail", "default"}

    def test_task_and_result_are_shown(self, flower: str, cluster: Cluster) -> None:
        job = cluster.launch("echo", "seen by Flower")

        wait_for(lambda: ask(f"{flower}/api/tasks").get(job, {}).get("state") == "SUCCESS")
        assert "seen by Flower" in json.dumps(ask(f"{flower}/api/task/info/{job}"))

    def test_consumers_are_controlled(self, flower: str, cluster: Cluster, worker: Worker) -> None:
        wait_for(lambda: worker_details(flower, worker), what="the worker has replied to Flower")

        ask(f"{flower}/api/worker/queue/cancel-consumer/{worker.name}", queue="mail")
        wait_for(lambda: cluster.worker(worker)["queues"] == ["default", "exports"])
        ask(f"{flower}/api/worker/queue/add-consumer/{worker.name}", queue="mail")

        wait_for(lambda: cluster.worker(worker)["queues"] == ["default", "exports", "mail"])


def worker_details(flower: str, worker: Worker) -> dict[str, Any]:
    """Return Flower's details of a worker, or {} until the worker has replied to all of Flower's requests.

    The query is restricted to this worker, because a query of all workers always takes the whole timeout.
    """
    try:
        details: dict[str, Any] = ask(f"{flower}/api/workers?refresh=1&workername={worker.name}")[worker.name]
    except urllib.error.HTTPError as error:
        if error.code != HTTPStatus.NOT_FOUND:
            raise
        return {}
    return details if {"stats", "active_queues"} <= details.keys() else {}


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, ConnectionError):
        return False


def ask(url: str, **form: str) -> Any:
    """Return the response of Flower's API; send a POST request if there is a form."""
    data = urlencode(form).encode() if form else None
    with urllib.request.urlopen(url, data=data, timeout=TIMEOUT) as response:
        return json.load(response)
