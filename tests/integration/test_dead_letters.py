"""A malformed message is set aside, and the worker goes on with the next one."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from microblog.monitoring.rules import Verdict
from microblog.monitoring.status import check_status
from microblog.taskqueue.consumer import MAX_DEAD_LETTERS, MAX_TEXT, dead_letters, delete_dead_letters, set_aside
from tests.support import tasks
from tests.support.console import commands
from tests.support.factories import start, state_of
from tests.support.messages import encode, message
from tests.support.prometheus import TOKEN, scrape
from tests.support.servers import RedisServer, Worker, wait_for

ON_SQLITE = pytest.mark.parametrize("database", ["sqlite"])  # the database makes no difference


MALFORMED: dict[str, Any] = {
    "text": "hello",
    "truncated": json.dumps(message())[:-10],
    "nothing": "",
    "list": [],
    "number": 7,
    "no properties": {"body": "", "headers": {}},
    "no delivery tag": message() | {"properties": {"delivery_info": {"exchange": "", "routing_key": ""}}},
    "list as delivery tag": message(properties={"delivery_tag": []}),
    "null as delivery tag": message(properties={"delivery_tag": None}),
    "number as queue": message(properties={"delivery_info": {"exchange": "microblog", "routing_key": 7}}),
    "deeply nested": "[" * 100_000,
    "invalid typed value": message(headers={"task": "noop", "id": {"__type__": "uuid", "__value__": "x"}}),
    "unknown compression": message(headers={"task": "noop", "id": "1", "compression": "rot13"}),
    "number as time limit": message(headers={"task": "noop", "id": "1", "timelimit": 5}),
    "text as time limits": message(headers={"task": "noop", "id": "1", "timelimit": ["a", "b"]}),
    "text as retries": message(headers={"task": "noop", "id": "1", "retries": "many"}),
    "null character in id": message(headers={"task": "noop", "id": "\0"}),
    "half a surrogate pair in id": message(headers={"task": "noop", "id": "\ud800"}),
    "typed value beside": message(headers={"task": "noop", "when": {"__type__": "time", "__value__": "12:00"}}),
    "unknown encoding": message(properties={"body_encoding": "rot13"}),
    "no base64": message(body="*"),
    "numeric body": message(body=7),
    "no headers": message(headers=[]),
    "text as headers": message(headers="task"),
    "no task": message(headers={"id": "1"}),
    "no id": message(headers={"task": "noop"}),
    "list as task": message(headers={"task": ["noop"], "id": "1"}),
    "number as id": message(headers={"task": "noop", "id": 1}),
    "body of another producer": message(body=encode({"event": "signup"})),
    "body is no JSON": message(body=base64.b64encode(b"{").decode()),
    "arguments are a mapping": message(body=encode([{}, [], {}])),
    "pickle": message(**{"content-type": "application/x-python-serialize", "content-encoding": "binary"}),
    "invalid time": message(headers={"task": "noop", "id": "1", "eta": "tomorrow"}),
    "invalid expiry": message(headers={"task": "noop", "id": "1", "expires": "tomorrow"}),
}

# One that each of the checks finds; the others are for the exhaustive run.
EVERYDAY = ("text", "no delivery tag", "unknown compression", "number as time limit", "no id", "pickle", "invalid time")
KINDS = [pytest.param(kind, marks=() if kind in EVERYDAY else pytest.mark.exhaustive) for kind in MALFORMED]


@ON_SQLITE
@pytest.mark.parametrize("kind", KINDS)
def test_malformed_message_is_set_aside(
    app: Flask, redis_server: RedisServer, worker: Worker, tmp_path: Path, kind: str
) -> None:
    malformed = MALFORMED[kind]
    text = malformed if isinstance(malformed, str) else json.dumps(malformed)
    redis_server.client.lpush(redis_server.key("default"), text)

    task_id = start(tasks.noop.s())

    wait_for(lambda: worker.process.poll() is not None or state_of(task_id) == "SUCCESS", what="the next message")
    assert (worker.process.poll(), state_of(task_id)) == (None, "SUCCESS")
    # Two more at the same time: the malformed message occupies no process of the pool.
    release_file = tmp_path / "release"
    both = [start(tasks.count.s(str(release_file))) for _ in range(2)]
    wait_for(lambda: [state_of(each) for each in both] == ["PROGRESS"] * 2, what="every process is free")
    release_file.touch()
    [letter] = dead_letters()
    assert letter.queue == "default"
    assert letter.reason in worker.text()
    wait_for(lambda: not redis_server.in_flight(), what="nothing is delivered again")


@ON_SQLITE
def test_dead_letters_are_limited_listed_and_reported(app: Flask, worker: Worker) -> None:
    run = commands(app, "tasks")
    assert run("dead-letters").stdout.splitlines()[1:] == []
    for number in range(MAX_DEAD_LETTERS + 1):
        set_aside("default", "it is not JSON", f"message {number}" + "x" * MAX_TEXT)

    status = check_status(timeout=30)
    listed = json.loads(run("dead-letters", "--json").stdout)

    assert status.verdict == Verdict.DEGRADED
    assert "Malformed messages: 100; flask tasks dead-letters lists them." in [
        problem.text for problem in status.problems
    ]
    assert [len(listed), len(listed[0]["message"])] == [MAX_DEAD_LETTERS, MAX_TEXT]
    assert listed[0]["message"].startswith("message 100x"), "the newest is kept"
    assert "it is not JSON" in run("dead-letters", "--delete").stdout
    assert dead_letters() == []


@ON_SQLITE
def test_only_listed_dead_letters_are_deleted_and_all_are_counted(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(app.config, "METRICS_TOKEN", TOKEN)
    for text in ("listed", "arrives after the list"):
        set_aside("default", "it is not valid JSON", text)

    delete_dead_letters(1)

    assert [letter.message for letter in dead_letters()] == ["arrives after the list"]
    assert scrape(app).value("microblog_messages_set_aside_total") == 2


@ON_SQLITE
def test_message_set_aside_while_redis_refuses_is_logged(
    app: Flask, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    with redis_server.refusing("READONLY"):
        set_aside("default", "it is not JSON", "hello")

    assert "the message is lost: hello" in caplog.text
