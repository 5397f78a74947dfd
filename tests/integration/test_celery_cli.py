"""Celery's own programs work on this application as Celery documents them, and a stock Flower runs beside it."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from microblog.taskqueue import states
from tests.support import programs
from tests.support.cluster import Staff, staffed
from tests.support.servers import PATIENCE, Worker, free_port, wait_for

CELERY = ["celery", "-A", "celery_app"]
PATIENTLY = ("--timeout", "60")  # for an answer that is expected, which comes sooner unless the machine is busy


@pytest.fixture(scope="module")
def staff(
    base_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Staff]:
    with staffed(base_environment, tmp_path_factory.mktemp("staff"), request) as staff:
        yield staff


@pytest.fixture(scope="module")
def worker(staff: Staff) -> Worker:
    return staff.hire()


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Path]:
    """Jobs called `count` run until this file is there; it is when the test is over."""
    path = tmp_path / "gate"
    yield path
    path.touch()


def celery(staff: Staff, *arguments: str) -> subprocess.CompletedProcess[str]:
    return programs.run([*CELERY, *arguments], staff.environment)


def told(staff: Staff, worker: Worker, *arguments: str) -> Any:
    """What the worker said to a program of Celery's that asked for JSON."""
    program, *rest = arguments
    done = celery(staff, program, *PATIENTLY, "--destination", worker.name, "--json", *rest)
    assert done.returncode == 0, done.stderr
    reply = json.loads(done.stdout.splitlines()[0])
    if isinstance(reply, list):  # `control`; `inspect` tells it by name
        [reply] = reply
    return reply[worker.name]


class TestInspect:
    def test_it_tells_what_workers_know(self, staff: Staff, worker: Worker, gate: Path) -> None:
        counting = staff.launch("count", str(gate))
        wait_for(lambda: staff.state(counting) == states.PROGRESS)

        # A process tells its worker that it has begun, which may be heard later than its first progress.
        wait_for(lambda: [task["id"] for task in told(staff, worker, "inspect", "active")] == [counting])
        said = {name: told(staff, worker, "inspect", name) for name in ("active_queues", "registered")}

        assert {queue["name"] for queue in said["active_queues"]} == {"exports", "mail", "default"}
        assert "reconcile" in said["registered"]

    @pytest.mark.parametrize("command", ["reserved", "scheduled", "revoked"])
    def test_it_lists(self, staff: Staff, worker: Worker, command: str) -> None:
        listed = told(staff, worker, "inspect", command)

        # Other tests have tasks revoked, and workers remember those.
        assert [task for task in listed if command != "revoked" or staff.state(task) != states.REVOKED] == []

    @pytest.mark.exhaustive
    def test_the_rest_of_it_works_too(self, staff: Staff, worker: Worker) -> None:
        assert told(staff, worker, "inspect", "stats")["pool"]["max-concurrency"] == 2
        assert told(staff, worker, "inspect", "ping") == {"ok": "pong"}
        assert told(staff, worker, "inspect", "conf")["task_acks_late"] is True
        assert told(staff, worker, "inspect", "clock")["clock"] > 0
        assert "celery:5" in told(staff, worker, "inspect", "report")["ok"]

    def test_query_task_finds_what_runs(self, staff: Staff, worker: Worker, gate: Path) -> None:
        counting = staff.launch("count", str(gate))
        wait_for(lambda: staff.state(counting) == states.PROGRESS)

        wait_for(lambda: told(staff, worker, "inspect", "query_task", counting)[counting][0] == "active")

    def test_status_lists_the_workers(self, staff: Staff, worker: Worker) -> None:
        def online() -> str:
            """What it prints; nothing if no worker answered in time. It always waits for as long as it may."""
            status = celery(staff, "status", "--timeout", "1")
            return status.stdout if status.returncode == 0 else ""

        printed = wait_for(online, what="the worker answers in time")

        assert worker.name in printed
        assert "1 node online" in printed

    @pytest.mark.exhaustive
    def test_without_an_answer_it_says_so(self, staff: Staff, worker: Worker) -> None:
        nobody = celery(staff, "inspect", "ping", "--timeout", "0.3", "--destination", "nobody@nowhere")

        assert nobody.returncode == 69
        assert "No nodes replied within time constraint" in nobody.stderr


@pytest.mark.exhaustive
class TestControl:
    def test_it_changes_the_pool(self, staff: Staff, worker: Worker) -> None:
        wait_for(lambda: not staff.redis_server.in_flight(), what="the processes are idle")
        assert told(staff, worker, "control", "pool_grow", "1") == {"ok": "pool will grow"}
        wait_for(lambda: staff.worker(worker)["concurrency"] == 3)
        assert told(staff, worker, "control", "pool_shrink", "1") == {"ok": "pool will shrink"}
        wait_for(lambda: staff.worker(worker)["concurrency"] == 2)
        assert told(staff, worker, "control", "pool_restart") == {"ok": "reload started"}
        assert "Autoscale not enabled" in told(staff, worker, "control", "autoscale", "3", "1")["error"]

    def test_it_changes_what_is_consumed(self, staff: Staff, worker: Worker) -> None:
        told(staff, worker, "control", "cancel_consumer", "mail")
        wait_for(lambda: staff.worker(worker)["queues"] == ["default", "exports"])
        told(staff, worker, "control", "add_consumer", "mail")
        wait_for(lambda: staff.worker(worker)["queues"] == ["default", "exports", "mail"])

    def test_it_changes_limits_and_they_hold(self, staff: Staff, worker: Worker, gate: Path) -> None:
        assert "ok" in told(staff, worker, "control", "rate_limit", "noop", "7/s")
        assert "ok" in told(staff, worker, "control", "time_limit", "count", "1", "60")
        [noop] = [task for task in staff.json("registered", *PATIENTLY) if task["name"] == "noop"]
        counting = staff.launch("count", str(gate))

        wait_for(lambda: staff.state(counting) == states.FAILURE)

        assert noop["rate_limit"] == "7/s"
        told(staff, worker, "control", "rate_limit", "noop", "0")
        told(staff, worker, "control", "time_limit", "count", "3300", "3600")

    def test_a_task_that_it_revokes_does_not_run_and_its_row_says_so(self, staff: Staff, worker: Worker) -> None:
        staff.run("pause", "mail", *PATIENTLY)
        waiting = staff.launch("noop", queue="mail")

        assert "flagged as revoked" in told(staff, worker, "control", "revoke", waiting)["ok"]

        staff.run("resume", "mail", *PATIENTLY)
        wait_for(lambda: staff.state(waiting) == states.REVOKED)

    def test_a_task_that_it_terminates_ends_and_its_row_says_so(self, staff: Staff, worker: Worker, gate: Path) -> None:
        counting = staff.launch("count", str(gate))
        wait_for(lambda: staff.state(counting) == states.PROGRESS)

        told(staff, worker, "control", "terminate", "SIGTERM", counting)

        wait_for(lambda: staff.state(counting) == states.REVOKED)

    def test_events_are_on(self, staff: Staff, worker: Worker) -> None:
        assert told(staff, worker, "control", "enable_events") == {"ok": "task events already enabled"}

    def test_shutdown_ends_a_worker(self, staff: Staff, worker: Worker) -> None:
        leaving = staff.hire("-Q", "mail", concurrency=1)

        celery(staff, "control", "--timeout", "1", "--destination", leaving.name, "shutdown")

        assert leaving.process.wait(PATIENCE) == 0

    def test_call_and_result_run_a_task(self, staff: Staff, worker: Worker) -> None:
        task_id = celery(staff, "call", "echo", "--args", "[7]").stdout.strip()

        assert len(task_id) == 36
        result = wait_for(lambda: celery(staff, "result", task_id).stdout)
        assert json.loads(result.replace("'", '"')) == {"args": [7], "name": ""}


@pytest.mark.exhaustive
def test_events_are_dumped(staff: Staff, worker: Worker, tmp_path: Path) -> None:
    printed = tmp_path / "events"
    printed.touch()

    def is_told(event: str, job: str) -> bool:
        return any(event in line and job in line for line in printed.read_text().splitlines())

    dump = programs.Program([*CELERY, "events", "--dump"], staff.environment, stdout=printed)
    try:
        wait_for(lambda: worker.name in printed.read_text(), what="its heartbeat")
        job = staff.launch("noop")

        for event in ("task received", "task started", "task succeeded"):
            wait_for(lambda event=event: is_told(event, job), what=event)
    finally:
        dump.terminate()
        dump.wait(PATIENCE)


@pytest.fixture(scope="module")
def flower(staff: Staff, worker: Worker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Flower as it comes, on our application."""
    port = free_port()
    log = tmp_path_factory.mktemp("flower") / "log"
    program = programs.Program(
        [*CELERY, "flower", f"--port={port}", "--address=127.0.0.1", "--inspect_timeout=60000"],
        staff.environment | {"FLOWER_UNAUTHENTICATED_API": "true"},
        stdout=log,
    )
    address = f"http://127.0.0.1:{port}"
    wait_for(lambda: answers(f"{address}/healthcheck"), what="Flower answers")
    wait_for(lambda: ask(f"{address}/api/workers?status=1").get(worker.name), what="Flower hears the worker's events")
    yield address
    program.kill()  # it would first wait for workers that do not answer any more
    program.wait(PATIENCE)


@pytest.mark.exhaustive
class TestFlower:
    def test_it_knows_the_workers(self, flower: str, worker: Worker) -> None:
        known = wait_for(lambda: all_known(flower, worker), what="the worker has told it all")

        assert known["stats"]["pool"]["max-concurrency"] == 2
        assert {queue["name"] for queue in known["active_queues"]} == {"exports", "mail", "default"}

    def test_it_sees_a_task_and_its_outcome(self, flower: str, staff: Staff) -> None:
        job = staff.launch("echo", "seen by Flower")

        wait_for(lambda: ask(f"{flower}/api/tasks").get(job, {}).get("state") == "SUCCESS")
        assert "seen by Flower" in json.dumps(ask(f"{flower}/api/task/info/{job}"))

    def test_what_it_steers_is_done(self, flower: str, staff: Staff, worker: Worker) -> None:
        wait_for(lambda: all_known(flower, worker), what="it knows the worker")

        ask(f"{flower}/api/worker/queue/cancel-consumer/{worker.name}", queue="mail")
        wait_for(lambda: staff.worker(worker)["queues"] == ["default", "exports"])
        ask(f"{flower}/api/worker/queue/add-consumer/{worker.name}", queue="mail")

        wait_for(lambda: staff.worker(worker)["queues"] == ["default", "exports", "mail"])


def all_known(flower: str, worker: Worker) -> dict[str, Any]:
    """What Flower knows of a worker, once that has answered all of its questions; nothing before.

    It asks this one alone: it would wait for the answers of all for as long as it may.
    """
    try:
        known: dict[str, Any] = ask(f"{flower}/api/workers?refresh=1&workername={worker.name}")[worker.name]
    except urllib.error.HTTPError as error:
        if error.code != HTTPStatus.NOT_FOUND:
            raise
        return {}
    return known if {"stats", "active_queues"} <= known.keys() else {}


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, ConnectionError):
        return False


def ask(url: str, **form: str) -> Any:
    """What Flower's API answers; with a form it is posted."""
    data = urlencode(form).encode() if form else None
    with urllib.request.urlopen(url, data=data, timeout=PATIENCE) as response:
        return json.load(response)
