"""``flask tasks workers`` and what else asks the workers: what they do, and who of them does not answer."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from click.testing import Result
from flask.cli import ScriptInfo

from microblog.monitoring.cli import completion
from microblog.monitoring.worker_rpc import ANSWERS, ANSWERS_KEPT, ASKED, broadcast
from microblog.monitoring.workers import all_questions, query_workers_about
from microblog.taskqueue.queues import pause_consuming, resume_consuming
from tests.support.cluster import Staff, staffed
from tests.support.console import flask_tasks, on_a_terminal
from tests.support.servers import Worker, wait_for

PASSWORD = "hunter2-of-redis"
SLACK = 1.0  # seconds that a command itself may take
PATIENCE = 60.0  # seconds that workers have to answer: the machine may be busy, and the usual second too short
PATIENTLY = ("--timeout", str(PATIENCE))
SOON = 30.0  # seconds: far less than they have
FAR = "2099-01-01T00:00:00+00:00"


@pytest.fixture(scope="module")
def staff(
    base_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Staff]:
    with staffed(base_environment, tmp_path_factory.mktemp("staff"), request, PASSWORD) as staff:
        yield staff


@pytest.fixture(scope="module")
def generalist(staff: Staff) -> Worker:
    """A worker with two processes that takes from all queues."""
    return staff.hire()


@pytest.fixture(scope="module")
def mailer(staff: Staff, generalist: Worker) -> Worker:
    """A worker with one process that only mails, and takes one message in advance."""
    return staff.hire("-Q", "mail", "--prefetch-multiplier", "2", concurrency=1)


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Path]:
    """Jobs called `count` run until this file is there; it is when the test is over."""
    path = tmp_path / "gate"
    yield path
    path.touch()


@pytest.fixture
def frozen(mailer: Worker) -> Iterator[Worker]:
    mailer.send_signal(signal.SIGSTOP)
    yield mailer
    mailer.send_signal(signal.SIGCONT)


def test_workers_tells_of_each_what_it_is(staff: Staff, generalist: Worker, mailer: Worker) -> None:
    began = time.monotonic()
    result = staff.run("workers", "--json", *PATIENTLY)
    took = time.monotonic() - began

    listed = {worker["name"]: worker for worker in json.loads(result.stdout)}
    assert (result.exit_code, result.stderr) == (0, "")
    assert took < SOON, "it waits no longer than for the last answer"
    assert listed.keys() == {generalist.name, mailer.name}
    assert {(worker["up"], worker["pool"]) for worker in listed.values()} == {(True, "prefork")}
    one = listed[generalist.name]
    # It takes one more for each that it keeps until its time comes.
    prefetch = 2 + len(staff.json("scheduled", *PATIENTLY))
    assert (one["pid"], one["concurrency"], one["prefetch"]) == (generalist.process.pid, 2, prefetch)
    assert one["queues"] == ["default", "exports", "mail"]
    assert (listed[mailer.name]["concurrency"], listed[mailer.name]["queues"]) == (1, ["mail"])
    assert all(20 * 2**20 < worker["memory"] < 2**30 and worker["uptime"] < 600 for worker in listed.values())
    assert one["last_seen"].endswith("Z")


def test_workers_counts_what_each_has_processed(staff: Staff, generalist: Worker, mailer: Worker) -> None:
    def processed() -> dict[str, int]:
        return {worker["name"]: worker["processed"] for worker in staff.json("workers", *PATIENTLY)}

    before = processed()
    jobs = [staff.launch("noop") for _ in range(3)]
    wait_for(lambda: {staff.state(job) for job in jobs} == {"SUCCESS"})

    # A process tells its worker that it has begun, and may have ended before that is heard.
    wait_for(lambda: processed() == before | {generalist.name: before[generalist.name] + 3})


def test_the_text_is_a_table_and_on_a_terminal_it_has_colours(staff: Staff, generalist: Worker, mailer: Worker) -> None:
    heading, *lines = staff.run("workers", *PATIENTLY).stdout.splitlines()
    on_terminal = on_a_terminal(flask_tasks("workers", *PATIENTLY), staff.environment)

    assert heading.split()[:3] == ["NAME", "STATE", "POOL"]
    assert [line.split()[:4] for line in lines] == [
        [generalist.name, "up", "prefork", "2"],
        [mailer.name, "up", "prefork", "1"],
    ]
    assert mailer.name in on_terminal
    assert "\x1b[" in on_terminal


def test_one_worker_tells_all_that_it_knows_but_no_secret(staff: Staff, generalist: Worker) -> None:
    told, text = staff.worker(generalist), staff.run("worker", generalist.name, *PATIENTLY)

    assert told["registered"]
    assert told["settings"]["worker_prefetch_multiplier"] == 1
    assert told["settings"]["broker_url"].endswith(f"@127.0.0.1:{staff.redis_server.port}/0")
    assert told["settings"]["result_backend"].startswith(
        "microblog.taskqueue.result_backend:DatabaseResultBackend+redis://"
    )
    assert {"active", "reserved", "scheduled", "revoked", "queues", "pool", "memory", "uptime"} <= told.keys()
    assert text.exit_code == 0
    for part in ("Concurrency", "prefork", "Active", "Reserved", "Revoked", "export_posts", "result_expires"):
        assert part in text.stdout
    assert PASSWORD not in json.dumps(told) + text.stdout


def test_nothing_that_workers_say_has_a_secret_in_it(staff: Staff, generalist: Worker, mailer: Worker) -> None:
    said = query_workers_about(all_questions(), PATIENCE)

    assert said.up.keys() == {generalist.name, mailer.name}
    assert PASSWORD not in repr(said)


def test_a_worker_that_nobody_knows_is_said_to_be_none(staff: Staff, generalist: Worker) -> None:
    result = staff.run("worker", "worker99@nowhere", "--json", "--timeout", "0.3")

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("There is no worker called worker99@nowhere; known are: ")
    assert generalist.name in result.stderr


def test_active_lists_what_runs_and_reserved_what_was_taken(staff: Staff, mailer: Worker, gate: Path) -> None:
    running = staff.launch("count", str(gate), queue="mail")
    wait_for(lambda: staff.state(running) == "PROGRESS")
    behind = [staff.launch("count", str(gate), queue="mail") for _ in range(3)]
    # Three processes take one each, and the mailer another one in advance.
    wait_for(lambda: len(staff.json("active", *PATIENTLY)) == 3)
    wait_for(lambda: len(staff.json("reserved", *PATIENTLY)) == 1)

    active = {task["id"]: task for task in staff.json("active", *PATIENTLY)}
    [waiting] = staff.json("reserved", *PATIENTLY)

    assert waiting["worker"] == mailer.name
    assert active[running]["name"] == "count"
    assert active[running]["args"] == [str(gate)]
    assert active[running]["started_at"].endswith("Z")
    of_mailer = [task for task in active.values() if task["worker"] == mailer.name]
    assert [task["pid"] for task in of_mailer] == staff.children(mailer)
    assert waiting["id"] in behind
    assert waiting["started_at"] is None
    assert staff.run("active", *PATIENTLY).stdout.count(running) == 1
    assert waiting["id"] in staff.run("reserved", *PATIENTLY).stdout


def test_scheduled_lists_what_waits_for_its_time(staff: Staff, generalist: Worker, mailer: Worker) -> None:
    task_id = staff.app.extensions["celery"].tasks["add"].apply_async((1, 2), eta=FAR).id

    [found] = wait_for(lambda: staff.json("scheduled", *PATIENTLY))
    staff.app.extensions["celery"].control.revoke(task_id)

    assert (found["id"], found["args"], found["worker"]) == (task_id, [1, 2], generalist.name)
    assert found["eta"].startswith("2099-01-01T00:00:00")
    assert "2099-01-01" in staff.run("scheduled", *PATIENTLY).stdout


def test_revoked_lists_what_workers_were_told_to_drop(staff: Staff, generalist: Worker, mailer: Worker) -> None:
    staff.app.extensions["celery"].control.revoke("never-to-run")

    def found() -> list[dict[str, object]]:
        return [known for known in staff.json("revoked", *PATIENTLY) if known["id"] == "never-to-run"]

    wait_for(lambda: found() == [{"id": "never-to-run", "workers": [generalist.name, mailer.name]}])
    assert "never-to-run" in staff.run("revoked", *PATIENTLY).stdout


def test_registered_lists_what_workers_can_run(staff: Staff, generalist: Worker, mailer: Worker) -> None:
    known = {entry["name"]: entry for entry in staff.json("registered", *PATIENTLY)}

    assert known["export_posts"]["workers"] == [generalist.name, mailer.name]
    assert (known["deaf"]["soft_time_limit"], known["deaf"]["time_limit"]) == (1, 2)
    assert known["deaf"]["rate_limit"] is None
    assert "export_posts" in staff.run("registered", *PATIENTLY).stdout


def test_queues_tells_what_waits_since_when_and_who_takes(staff: Staff, generalist: Worker, mailer: Worker) -> None:
    pause_consuming("exports")
    wait_for(lambda: staff.worker(generalist)["queues"] == ["default", "mail"])
    jobs = [staff.launch("export_posts", 0) for _ in range(2)]
    # One that the worker had asked for before, it puts back.
    wait_for(lambda: staff.redis_server.client.llen("exports") == 2)

    by_name = {queue["name"]: queue for queue in staff.json("queues", *PATIENTLY)}
    text = staff.run("queues", *PATIENTLY).stdout
    resume_consuming("exports")

    first = staff.job(jobs[0]).root.published_at
    assert list(by_name) == ["exports", "mail", "default"]
    assert by_name["exports"] == {
        "name": "exports",
        "length": 2,
        "oldest": first.isoformat().replace("+00:00", "Z"),
        "consumers": 0,
        "paused": True,
    }
    assert (by_name["mail"]["consumers"], by_name["mail"]["paused"], by_name["mail"]["oldest"]) == (2, False, None)
    assert text.splitlines()[1].split()[:2] == ["exports", "2"]
    assert "paused" in text
    wait_for(lambda: all(staff.job(job).finished_at for job in jobs), what="the worker came back to them by itself")


@pytest.mark.exhaustive
def test_a_frozen_worker_is_named_and_costs_no_more_than_the_timeout(
    staff: Staff, generalist: Worker, frozen: Worker
) -> None:
    def run_quickly(command: str) -> Result | None:
        """What it says, if the other worker answered in time and it took no longer than it may.

        Either may take longer while the machine is busy.
        """
        began = time.monotonic()
        result = staff.run(command, "--timeout", "0.5")
        took = time.monotonic() - began
        assert took >= 0.5
        return result if took < 0.5 + SLACK and f"{generalist.name} does not answer" not in result.stderr else None

    def listed() -> dict[str, bool]:
        return {worker["name"]: worker["up"] for worker in staff.json("workers", "--timeout", "0.5")}

    for command in ("workers", "active", "reserved", "scheduled", "revoked", "registered"):
        result = wait_for(partial(run_quickly, command), what=f"{command} ends in time")

        assert result is not None
        assert result.exit_code == 1
        assert result.stderr.count(f"{frozen.name} does not answer; it was last seen at 20") == 1
    wait_for(lambda: listed() == {generalist.name: True, frozen.name: False})
    assert staff.run("queues", "--timeout", "0.5").exit_code == 0
    one = staff.run("worker", frozen.name, "--timeout", "0.3")
    assert (one.exit_code, one.stdout) == (3, "")
    assert "does not answer" in one.stderr


@pytest.mark.exhaustive
def test_what_a_frozen_worker_was_told_it_does_not_do_when_nobody_waits_any_more(
    staff: Staff, generalist: Worker, mailer: Worker
) -> None:
    mailer.send_signal(signal.SIGSTOP)
    told = staff.run("worker", mailer.name, "grow", "3", "--timeout", "0.3")
    mailer.send_signal(signal.SIGCONT)

    assert told.exit_code == 3
    wait_for(lambda: "nobody waits any more for the answer to: pool_grow" in mailer.text())
    assert staff.worker(mailer)["concurrency"] == 1


def test_many_who_ask_at_once_get_their_own_answers_and_leave_nothing_behind(
    staff: Staff, generalist: Worker, mailer: Worker
) -> None:
    answered: list[set[str]] = []

    def kept() -> set[str]:
        patterns = ("microblog:asked:*", "microblog:answers:*", "*reply*")
        return {key for pattern in patterns for key in staff.redis_server.client.scan_iter(pattern)}

    def ask() -> None:
        with staff.app.app_context():
            for _ in range(5):
                said = query_workers_about({"ping": {}}, PATIENCE)
                assert {reply["ping"]["ok"] for reply in said.up.values()} == {"pong"}
                answered.append(set(said.up))

    # Workers answer in order: none has yet to answer a question of an earlier test, too late.
    with staff.app.app_context():
        query_workers_about({"ping": {}}, PATIENCE)
    kept_before = kept()
    askers = [threading.Thread(target=ask) for _ in range(8)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()

    assert answered == [{generalist.name, mailer.name}] * 40
    assert kept() <= kept_before


@pytest.mark.exhaustive
def test_an_answer_that_comes_too_late_does_not_stay(staff: Staff, generalist: Worker) -> None:
    client = staff.redis_server.client
    client.set(ASKED.format("late"), 1)
    with staff.app.extensions["celery"].connection_for_write() as connection:
        broadcast(connection, "late", {"ping": {}}, None)

    wait_for(lambda: client.llen(ANSWERS.format("late")) == len(staff.workers), what="all have answered")

    assert 0 < client.ttl(ANSWERS.format("late")) <= ANSWERS_KEPT
    client.delete(ASKED.format("late"), ANSWERS.format("late"))


def test_a_shell_completes_names(
    staff: Staff, generalist: Worker, mailer: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completion, "DEADLINE", PATIENCE)

    def offered(line: str) -> list[str]:
        *words, last = line.split(" ")
        completion = ShellComplete(staff.app.cli, {"obj": ScriptInfo(create_app=lambda: staff.app)}, "flask", "_F")
        return [item.value for item in completion.get_completions(words, last)]

    assert offered("tasks worker work") == [generalist.name, mailer.name]
    assert offered(f"tasks worker {mailer.name} gr") == ["grow"]
    assert offered("tasks pause ex") == ["exports"]
    assert offered("tasks run rec") == ["reconcile"]
    assert offered("tasks rate-limit email_ex") == ["email_export"]
