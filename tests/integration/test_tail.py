"""``flask tasks tail``: each event a line, for people or for programs, whatever happens to Redis or to the reader."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from microblog.accounts.models import User
from microblog.extensions import db
from microblog.monitoring.events import CHANGE, PROGRESS, EventFilter, TaskLookup, event_line
from microblog.taskqueue.launch import launch_task
from tests.support.console import flask_tasks, from_nothing
from tests.support.programs import ROOT, Program
from tests.support.servers import PATIENCE, RedisServer, Worker, wait_for

AT = 1779019471.25


class Tailing:
    """A `flask tasks tail` that runs."""

    def __init__(self, environment: dict[str, str], folder: Path, *options: str) -> None:
        self._out, self._err = folder / "out", folder / "err"
        for file in (self._out, self._err):
            file.write_bytes(b"")
        self.process = Program(flask_tasks("tail", *options), environment, stdout=self._out, stderr=self._err)

    @property
    def lines(self) -> list[str]:
        whole, _newline, _part = self._out.read_text().rpartition("\n")
        return whole.splitlines()

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]

    @property
    def said(self) -> str:
        return self._err.read_text()

    def has(self, *kinds: str) -> bool:
        return set(kinds) <= {event["type"] for event in self.events}

    def end(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(PATIENCE)


@pytest.fixture
def tail(environment: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., Tailing]]:
    """Starts `flask tasks tail`."""
    started: list[Tailing] = []

    def start(*options: str) -> Tailing:
        tailing = Tailing(environment, tmp_path, *options)
        started.append(tailing)
        return tailing

    yield start
    for tailing in started:
        if tailing.process.poll() is None:
            tailing.process.kill()
            tailing.process.wait()


def clients_that_listen(redis_server: RedisServer) -> set[str]:
    """The ids, none of which is given twice, of the connections that listen to a pattern of channels."""
    return {client["id"] for client in redis_server.client.client_list() if client["psub"] != "0"}


def launch_count(user: User, gate: Path) -> str:
    job = launch_task("count", "Counting", str(gate), user_id=user.id).id
    db.session.commit()
    return job


@pytest.mark.parametrize("database", ["sqlite"])
class TestTail:
    def test_a_jobs_life_is_told_from_its_arrival_to_its_end(self, tail, worker: Worker, make_user, tmp_path: Path):
        tailing = tail("--json")
        wait_for(lambda: tailing.has("worker-heartbeat"), what="it hears")

        job = launch_count(make_user(), tmp_path / "gate")
        wait_for(lambda: tailing.has(PROGRESS), what="progress")
        (tmp_path / "gate").touch()
        wait_for(lambda: tailing.has("task-received", "task-started", "task-succeeded"), what="its end")

        of_job = [event for event in tailing.events if event.get("uuid") == job]
        assert {event["name"] for event in of_job} == {"count"}, "also of events that have no name themselves"
        assert {event["hostname"] for event in of_job} == {worker.name}
        assert [event["percent"] for event in of_job if event["type"] == PROGRESS][-1] == 100
        assert tailing.end() == 0
        assert "Traceback" not in tailing.said

    def test_it_lets_through_what_is_asked_for(
        self, tail, worker: Worker, make_user, redis_server: RedisServer, tmp_path: Path
    ):
        listeners = clients_that_listen(redis_server)
        gates = tmp_path / "gate", tmp_path / "other"
        wanted = launch_count(make_user(), gates[0])
        launch_count(make_user("david"), gates[1])
        by_job = tail("--json", "--job", wanted, "--task", "count")
        wait_for(lambda: by_job.has(PROGRESS), what="progress of a task that had begun before")
        wait_for(lambda: clients_that_listen(redis_server) - listeners, what="it hears Celery's events, too")
        for gate in gates:
            gate.touch()
        wait_for(lambda: by_job.has("task-succeeded"), what="its end")

        assert {event["root_id"] for event in by_job.events} == {wanted}

    @pytest.mark.exhaustive
    def test_it_outlives_a_restart_of_redis_and_says_so(
        self, tail, make_worker: Callable[..., Worker], redis_server: RedisServer
    ):
        worker = make_worker()
        tailing = tail("--worker", worker.name)
        wait_for(lambda: tailing.lines, what="a heartbeat")

        with redis_server.away():
            wait_for(lambda: "Redis is away" in tailing.said, what="that Redis is away")
        wait_for(lambda: "Redis is back." in tailing.said, what="that Redis is back")

        heard = len(tailing.lines)
        wait_for(lambda: len(tailing.lines) > heard, what="events again")
        assert tailing.said.count("Redis is away") == 1
        assert all(worker.name in line for line in tailing.lines)
        assert tailing.end() == 0

    @pytest.mark.exhaustive
    def test_it_waits_for_a_redis_and_a_worker_that_are_yet_to_come(self, app, tail, redis_server: RedisServer):
        with redis_server.away():
            tailing = tail()
            wait_for(lambda: "Redis is away" in tailing.said, what="that Redis is away")
        wait_for(lambda: "Redis is back." in tailing.said, what="that Redis is back")
        wait_for(lambda: "No worker has given a sign of life" in tailing.said, what="that there is no worker")
        assert tailing.process.poll() is None

    @pytest.mark.exhaustive
    def test_it_ends_when_nobody_reads_any_more_even_if_there_is_nothing_to_print(self, environment, worker: Worker):
        command = flask_tasks("tail", "--worker", "nobody@nowhere")
        process = subprocess.Popen(
            from_nothing(command), cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert process.stdout is not None
        assert process.stderr is not None

        process.stdout.close()

        assert process.wait(PATIENCE) == 0
        assert process.stderr.read() == b""
        process.stderr.close()

    @pytest.mark.exhaustive
    def test_it_ends_in_peace_when_its_reader_leaves(self, environment, worker: Worker):
        process = subprocess.Popen(
            from_nothing(flask_tasks("tail")), cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert process.stdout is not None
        assert process.stderr is not None

        assert b"worker-" in process.stdout.readline()
        process.stdout.close()

        assert process.wait(PATIENCE) == 0
        assert process.stderr.read() == b""
        process.stderr.close()


class TestWhatIsKnownOfAnEvent:
    def test_progress_gets_the_name_and_the_id_of_its_step_from_the_table(self, app: Flask, make_user):
        user = make_user()
        user.launch_task("export_posts", "Exporting your posts")
        db.session.commit()
        first, second = sorted(user.get_tasks_in_progress(), key=lambda task: task.position)
        ids = first.id, second.id

        event = TaskLookup().complete({"type": PROGRESS, "timestamp": AT, "root_id": ids[0], "position": 1})

        assert (event["name"], event["uuid"], event["root_id"]) == ("email_export", ids[1], ids[0])
        assert TaskLookup().root_of(ids[1]) == ids[0]

    def test_events_without_a_name_get_it_from_those_before(self, app: Flask):
        directory = TaskLookup()
        directory.complete({"type": "task-received", "timestamp": AT, "uuid": "a", "name": "sweep", "root_id": "r"})

        event = directory.complete({"type": "task-started", "timestamp": AT, "uuid": "a", "hostname": "w@h"})

        assert (event["name"], event["root_id"]) == ("sweep", "r")

    def test_what_nobody_knows_stays_as_it_is(self, app: Flask):
        event = {"type": "task-started", "timestamp": AT, "uuid": "a"}
        assert TaskLookup().complete(event) == event
        assert TaskLookup().complete({"type": CHANGE, "root_id": "x", "position": 0})["type"] == CHANGE


@pytest.mark.parametrize(
    ("filters", "passes"),
    [
        (EventFilter(), True),
        (EventFilter(task="count"), True),
        (EventFilter(task="other"), False),
        (EventFilter(job="root"), True),
        (EventFilter(job="step"), True),
        (EventFilter(job="other"), False),
        (EventFilter(worker="w@h"), True),
        (EventFilter(worker="v@h"), False),
        (EventFilter(task="count", job="root", worker="v@h"), False),
    ],
)
def test_all_filters_must_fit(filters: EventFilter, passes: bool) -> None:
    event = {"type": "task-started", "uuid": "step", "root_id": "root", "name": "count", "hostname": "w@h"}
    assert filters.let_through(event) is passes


def test_events_of_workers_have_no_task() -> None:
    heartbeat = {"type": "worker-heartbeat", "hostname": "w@h"}
    assert EventFilter().let_through(heartbeat)
    assert not EventFilter(task="count").let_through(heartbeat)
    assert not EventFilter(job="root").let_through(heartbeat)


def test_a_line_is_one_line_and_steers_no_terminal() -> None:
    event = {"type": "task-failed", "timestamp": AT, "uuid": "a", "name": "x", "exception": "Bad('\x1b[2J\nnext')"}

    line = event_line(event)

    assert line.startswith("12:04:31.250  task-failed       x[a]")
    assert line.isprintable()


@pytest.mark.parametrize("database", ["sqlite"])
@pytest.mark.parametrize("command", ["watch", "tail"])
def test_each_explains_itself_with_an_example(app: Flask, command: str) -> None:
    result = app.test_cli_runner().invoke(args=["tasks", command, "--help"])

    assert result.exit_code == 0
    assert f"flask tasks {command}" in result.output.partition("Example")[2]
