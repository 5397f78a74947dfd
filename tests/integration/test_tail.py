"""``flask tasks tail``: one line for each event, as text or JSON, also after faults of Redis or of the reader."""

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
from tests.support.console import as_python_module, flask_tasks
from tests.support.messages import encode, message
from tests.support.programs import ROOT, ScriptProcess
from tests.support.servers import TIMEOUT, RedisServer, Worker, wait_for

AT = 1779019471.25


CELERY_EVENTS, ENGINE_EVENTS = "/0.celeryev/worker.heartbeat", "events"


def celery_message(event: Any) -> dict[str, Any]:
    """Return the message with an event of Celery, as kombu sends it."""
    return message({}, body=encode(event), properties={"delivery_info": {"exchange": "celeryev", "routing_key": ""}})


def celery_event(**changes: Any) -> dict[str, Any]:
    return celery_message({"type": "task-started", "timestamp": AT, "uuid": "a", "utcoffset": 0} | changes)


def engine_event(progress: Any = None, **changes: Any) -> dict[str, Any]:
    """Return the announcement of a change of a job."""
    data = {"id": "a", "position": 0, "state": "PROGRESS", "progress": progress} | changes
    return {"topics": [], "event": {"name": "task", "timestamp": AT, "data": data}}


COUNTS = {"current": 1, "total": 2, "percent": 50, "message": ""}
MALFORMED: dict[str, list[Any]] = {
    CELERY_EVENTS: [
        "hello",
        "[" * 100_000,
        [],
        celery_message(7),
        celery_message({}),
        celery_message([7]),
        celery_message({"type": "worker-online"}),
        celery_event() | {"body": "*"},
        celery_event() | {"content-type": "application/x-python-serialize", "content-encoding": "binary"},
        celery_event(type=7),
        celery_event(type=None),
        celery_event(type=PROGRESS),
        celery_event(type="worker-heartbeat", hostname="w@h", loadavg=7),
        celery_event(type="worker-heartbeat", hostname="w@h", active="many"),
        celery_event(timestamp="now"),
        celery_event(timestamp=1e300),
        celery_event(clock="x"),
        celery_event(uuid=[]),
        celery_event(uuid=None),
        celery_event(uuid="\0"),
        celery_event(uuid="\ud800"),
        celery_event(hostname=7),
        celery_event(name=["x"]),
        celery_event(root_id={}),
    ],
    ENGINE_EVENTS: [
        "hello",
        [],
        {"event": 7},
        engine_event(COUNTS, id=7),
        engine_event(COUNTS, id="\0"),
        engine_event(COUNTS, position=2**40),
        engine_event(COUNTS | {"total": "x"}),
    ],
}


class Tailing:
    """A running ``flask tasks tail``."""

    def __init__(self, environment: dict[str, str], folder: Path, *options: str) -> None:
        self._out, self._err = folder / "out", folder / "err"
        for file in (self._out, self._err):
            file.write_bytes(b"")
        self.process = ScriptProcess(flask_tasks("tail", *options), environment, stdout=self._out, stderr=self._err)

    @property
    def lines(self) -> list[str]:
        complete, _newline, _incomplete = self._out.read_text().rpartition("\n")
        return complete.splitlines()

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]

    @property
    def stderr(self) -> str:
        return self._err.read_text()

    def has(self, *kinds: str) -> bool:
        return set(kinds) <= {event["type"] for event in self.events}

    def end(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(TIMEOUT)


def close_stdout_of_tail(environment: dict[str, str], *options: str, after_line: bool) -> tuple[int, bytes]:
    """Close the pipe that ``flask tasks tail`` writes to, at once or after a line; return its exit code and stderr."""
    command = as_python_module(flask_tasks("tail", *options))
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        if after_line:
            assert b"worker-" in process.stdout.readline()
        process.stdout.close()
        return process.wait(TIMEOUT), process.stderr.read()


@pytest.fixture
def tail(environment: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., Tailing]]:
    """Starts ``flask tasks tail``."""
    started: list[Tailing] = []

    def start(*options: str) -> Tailing:
        tailing = Tailing(environment, tmp_path, *options)
        started.append(tailing)
        return tailing

    yield start
    for tailing in started:
        tailing.process.kill()


def pattern_subscribers(redis_server: RedisServer) -> set[str]:
    """Return the ids of the connections that are subscribed to a channel pattern. Redis does not reuse ids."""
    return {client["id"] for client in redis_server.client.client_list() if client["psub"] != "0"}


def launch_count(user: User, release_file: Path) -> str:
    job = launch_task("count", "Counting", str(release_file), user_id=user.id).id
    db.session.commit()
    return job


@pytest.mark.parametrize("database", ["sqlite"])
class TestTail:
    def test_tail_prints_task_lifecycle(
        self, tail: Callable[..., Tailing], worker: Worker, make_user: Callable[..., User], tmp_path: Path
    ) -> None:
        tailing = tail("--json")
        wait_for(lambda: tailing.has("worker-heartbeat"), what="tail receives events")

        job = launch_count(make_user(), tmp_path / "release")
        wait_for(lambda: tailing.has(PROGRESS), what="progress")
        (tmp_path / "release").touch()
        wait_for(lambda: tailing.has("task-received", "task-started", "task-succeeded"), what="the task's end")

        job_events = [event for event in tailing.events if event.get("uuid") == job]
        assert {event["name"] for event in job_events} == {"count"}, "also for events that have no name themselves"
        assert {event["hostname"] for event in job_events} == {worker.name}
        assert [event["percent"] for event in job_events if event["type"] == PROGRESS][-1] == 100
        assert tailing.end() == 0
        assert "Traceback" not in tailing.stderr

    def test_tail_filters_by_job_and_task(
        self,
        tail: Callable[..., Tailing],
        worker: Worker,
        make_user: Callable[..., User],
        redis_server: RedisServer,
        tmp_path: Path,
    ) -> None:
        subscribers = pattern_subscribers(redis_server)
        release_files = tmp_path / "release", tmp_path / "other"
        job = launch_count(make_user(), release_files[0])
        launch_count(make_user("david"), release_files[1])
        by_job = tail("--json", "--job", job, "--task", "count")
        wait_for(lambda: by_job.has(PROGRESS), what="progress of a task that had started earlier")
        wait_for(lambda: pattern_subscribers(redis_server) - subscribers, what="tail receives Celery's events, too")
        for release_file in release_files:
            release_file.touch()
        wait_for(lambda: by_job.has("task-succeeded"), what="the task's end")

        assert {event["root_id"] for event in by_job.events} == {job}

    @pytest.mark.parametrize("options", [[], pytest.param(["--json"], marks=pytest.mark.exhaustive)])
    def test_tail_continues_after_malformed_events(
        self, tail: Callable[..., Tailing], redis_server: RedisServer, options: list[str]
    ) -> None:
        tailing = tail(*options)

        for channel, malformed in MALFORMED.items():
            for text in malformed:
                redis_server.publish(channel, text)
        redis_server.publish(ENGINE_EVENTS, engine_event(COUNTS))
        redis_server.publish(CELERY_EVENTS, celery_message({"type": "worker-online", "timestamp": AT, "clock": 2**64}))

        wait_for(lambda: len(tailing.lines) == 2 or tailing.process.poll() is not None, what="the events after them")
        assert [any(kind in line for line in tailing.lines) for kind in (PROGRESS, "worker-online")] == [True, True]
        assert tailing.end() == 0

    @pytest.mark.exhaustive
    def test_tail_survives_redis_restart(
        self, tail: Callable[..., Tailing], make_worker: Callable[..., Worker], redis_server: RedisServer
    ) -> None:
        worker = make_worker()
        tailing = tail("--worker", worker.name)
        wait_for(lambda: tailing.lines, what="a heartbeat")

        with redis_server.stopped():
            wait_for(lambda: "Redis is unavailable" in tailing.stderr, what="tail reports that Redis is unavailable")
        wait_for(lambda: "Redis is back." in tailing.stderr, what="tail reports that Redis is available")

        count = len(tailing.lines)
        wait_for(lambda: len(tailing.lines) > count, what="new events")
        assert tailing.stderr.count("Redis is unavailable") == 1
        assert all(worker.name in line for line in tailing.lines)
        assert tailing.end() == 0

    @pytest.mark.exhaustive
    def test_tail_waits_for_redis_and_worker(
        self, app: Flask, tail: Callable[..., Tailing], redis_server: RedisServer
    ) -> None:
        with redis_server.stopped():
            tailing = tail()
            wait_for(lambda: "Redis is unavailable" in tailing.stderr, what="tail reports that Redis is unavailable")
        wait_for(lambda: "Redis is back." in tailing.stderr, what="tail reports that Redis is available")
        wait_for(lambda: "No worker has sent an event" in tailing.stderr, what="the report of no worker")
        assert tailing.process.poll() is None

    @pytest.mark.exhaustive
    def test_idle_tail_ends_when_stdout_is_closed(self, environment: dict[str, str], worker: Worker) -> None:
        assert close_stdout_of_tail(environment, "--worker", "nobody@nowhere", after_line=False) == (0, b"")

    @pytest.mark.exhaustive
    def test_tail_ends_cleanly_when_stdout_is_closed(self, environment: dict[str, str], worker: Worker) -> None:
        assert close_stdout_of_tail(environment, after_line=True) == (0, b"")


class TestTaskLookup:
    def test_progress_event_gets_name_and_id_from_table(self, app: Flask, make_user: Callable[..., User]) -> None:
        user = make_user()
        user.launch_task("export_posts", "Exporting your posts")
        db.session.commit()
        first, second = sorted(user.get_tasks_in_progress(), key=lambda task: task.position)
        ids = first.id, second.id

        event = TaskLookup().complete({"type": PROGRESS, "timestamp": AT, "root_id": ids[0], "position": 1})

        assert (event["name"], event["uuid"], event["root_id"]) == ("email_export", ids[1], ids[0])
        assert TaskLookup().root_of(ids[1]) == ids[0]

    def test_event_gets_name_from_earlier_event(self, app: Flask) -> None:
        lookup = TaskLookup()
        lookup.complete({"type": "task-received", "timestamp": AT, "uuid": "a", "name": "sweep", "root_id": "r"})

        event = lookup.complete({"type": "task-started", "timestamp": AT, "uuid": "a", "hostname": "w@h"})

        assert (event["name"], event["root_id"]) == ("sweep", "r")

    def test_unknown_event_is_unchanged(self, app: Flask) -> None:
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
def test_all_filters_must_match(filters: EventFilter, passes: bool) -> None:
    event = {"type": "task-started", "uuid": "step", "root_id": "root", "name": "count", "hostname": "w@h"}
    assert filters.matches(event) is passes


def test_worker_events_match_no_task_filter() -> None:
    heartbeat = {"type": "worker-heartbeat", "hostname": "w@h"}
    assert EventFilter().matches(heartbeat)
    assert not EventFilter(task="count").matches(heartbeat)
    assert not EventFilter(job="root").matches(heartbeat)


def test_event_line_is_printable() -> None:
    event = {"type": "task-failed", "timestamp": AT, "uuid": "a", "name": "x", "exception": "Bad('\x1b[2J\nnext')"}

    line = event_line(event)

    assert line.startswith("12:04:31.250  task-failed       x[a]")
    assert line.isprintable()


@pytest.mark.parametrize("database", ["sqlite"])
@pytest.mark.parametrize("command", ["watch", "tail"])
def test_help_has_example(app: Flask, command: str) -> None:
    result = app.test_cli_runner().invoke(args=["tasks", command, "--help"])

    assert result.exit_code == 0
    assert f"flask tasks {command}" in result.output.partition("Example")[2]
