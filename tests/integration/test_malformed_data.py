"""Malformed data in Redis, beside the queues, stops neither workers nor reconcile nor commands."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask

from microblog.taskqueue.consumer import dead_letters
from microblog.taskqueue.reconcile import reconcile_all
from tests.support import tasks
from tests.support.factories import crash, make_older, rows_of, start, state_of
from tests.support.messages import encode, message
from tests.support.servers import TIMEOUT, RedisServer, Worker, wait_for

pytestmark = pytest.mark.parametrize("database", ["sqlite"])

COMMANDS = "/0.celery.pidbox"  # the channel of kombu in database 0


def envelope(body: Any, headers: Any = None) -> dict[str, Any]:
    """Return a message on a channel, as kombu sends it."""
    place = {"exchange": "celery.pidbox", "routing_key": ""}
    return message(headers or {}, body=encode(body), properties={"delivery_info": place})


def command(**changes: Any) -> dict[str, Any]:
    """Return the message of the remote control command ``ping`` with `changes`."""
    return envelope({"method": "ping", "arguments": {}, "destination": None} | changes)


def add_queue(**arguments: Any) -> dict[str, Any]:
    return command(method="add_consumer", arguments=arguments)


MALFORMED_COMMANDS: dict[str, Any] = {
    "text": "hello",
    "deeply nested": "[" * 100_000,
    "list": [],
    "number": 7,
    "no properties": {},
    "list as headers": envelope({}) | {"headers": []},
    "unknown compression": envelope({}, {"compression": "rot13"}),
    "text as clock": envelope({"method": "ping"}, {"clock": "x"}),
    "no base64": envelope({}) | {"body": "*"},
    "body is no JSON": envelope({}) | {"body": base64.b64encode(b"{").decode()},
    "body is a list": envelope([]),
    "body is a number": envelope(7),
    "empty body": envelope({}),
    "unknown method": command(method="rot13"),
    "list as method": command(method=[]),
    "list as arguments": command(arguments=[1]),
    "text as number": command(method="pool_grow", arguments={"n": "many"}),
    "number as destination": command(destination=7),
    "unknown matcher": command(pattern="x", matcher="rot13"),
    "invalid pattern": command(pattern="(", matcher="pcre"),
    "text as reply address": command(reply_to="x", ticket="1"),
    "numbers in reply address": command(reply_to={"exchange": 7, "routing_key": []}, ticket="1"),
    "list as queue": add_queue(queue=[]),
    "number as queue": add_queue(queue=7),
    "half a surrogate pair as queue": add_queue(queue="\ud800"),
    "unknown type of exchange": add_queue(queue="q", exchange_type="rot13"),
    "other type of exchange": add_queue(queue="q", exchange="microblog", exchange_type="fanout"),
    "unknown option of a queue": add_queue(queue="q", unknown=1),
    "list as queue to cancel": command(method="cancel_consumer", arguments={"queue": []}),
}


@pytest.mark.parametrize("kind", MALFORMED_COMMANDS)
def test_worker_replies_after_malformed_command(
    app: Flask, redis_server: RedisServer, worker: Worker, kind: str
) -> None:
    ping = app.extensions["celery"].control.inspect([worker.name], limit=1, timeout=TIMEOUT).ping
    redis_server.publish(COMMANDS, MALFORMED_COMMANDS[kind])

    assert ping() == {worker.name: {"ok": "pong"}}

    task_id = start(tasks.noop.s())
    wait_for(lambda: state_of(task_id) == "SUCCESS", what="the worker runs tasks")
    assert worker.process.poll() is None


@pytest.mark.exhaustive
def test_worker_replies_after_malformed_events_of_others(
    app: Flask, redis_server: RedisServer, make_worker: Callable[..., Worker]
) -> None:
    """Gossip, which is on by default, receives the events of all workers."""
    worker = make_worker(gossip=True)

    events: list[Any] = ["[" * 100_000, [], envelope(7), envelope({}), envelope([7]), envelope({}) | {"body": "*"}]
    for malformed in events:
        redis_server.publish("/0.celeryev/worker.heartbeat", malformed)

    ping = app.extensions["celery"].control.inspect([worker.name], limit=1, timeout=TIMEOUT).ping
    assert ping() == {worker.name: {"ok": "pong"}}


UNACKNOWLEDGED: list[str | bytes] = [
    "hello",
    b"\xff",
    "[" * 100_000,
    "7",
    "[]",
    json.dumps([7, "microblog", "default"]),
    json.dumps([{}, "microblog", "default"]),
    json.dumps([message(), 7, "default"]),
    json.dumps([message(), "microblog", None]),
]


def test_malformed_unacknowledged_messages_are_set_aside(app: Flask, redis_server: RedisServer) -> None:
    """A worker restores messages that were delivered long ago, here to no worker at all."""
    client, task_id = redis_server.client, start(tasks.noop.s())
    delivered = json.dumps([json.loads(str(client.rpop(redis_server.key("default")))), "microblog", "default"])
    entries: dict[str, Any] = {str(number): text for number, text in enumerate([*UNACKNOWLEDGED, delivered])}
    for tag, text in entries.items():
        client.hset(redis_server.key("unacked"), tag, text)
    client.zadd(redis_server.key("unacked_index"), dict.fromkeys([*entries, "no message"], 0))

    celery = app.extensions["celery"]
    with celery.connection_for_read() as connection:
        channel = connection.channel()
        celery.amqp.queues["default"](channel).declare()  # which a process does once, and other tests empty Redis
        channel.qos.restore_visible(num=None)  # as a worker does at its start, and then regularly

    assert [letter.queue for letter in dead_letters()] == ["unacked"] * len(UNACKNOWLEDGED)
    [restored] = redis_server.messages("default")
    assert json.loads(restored)["headers"]["id"] == task_id
    assert redis_server.unacknowledged() == 0


RESULTS: dict[str, str | bytes] = {
    "text": "hello",
    "bytes": b"\xff",
    "nested": "[" * 100_000,
    "list": "[]",
    "no result": '{"status": "SUCCESS"}',
    "list as state": '{"status": [], "result": 1}',
    "unknown type": '{"status": "SUCCESS", "result": {"__type__": "unknown", "__value__": 1}}',
}


@pytest.mark.parametrize("kind", RESULTS)
def test_malformed_result_counts_as_missing(app: Flask, redis_server: RedisServer, kind: str) -> None:
    backend = app.extensions["celery"].backend
    crashed, succeeded = start(tasks.noop.s()), start(tasks.echo.s(), tasks.noop.s())
    crash(app, crashed)
    backend.mark_as_done(succeeded, 7)
    for job_id in (crashed, succeeded):
        make_older(job_id, created_at=60, published_at=60, finished_at=60)
        redis_server.client.set(backend.get_key_for_task(job_id).decode(), RESULTS[kind])

    assert reconcile_all() == 2, "one is published again, and the next step of the other is published"


def test_malformed_error_keeps_its_state(app: Flask, redis_server: RedisServer) -> None:
    backend, task_id = app.extensions["celery"].backend, start(tasks.noop.s())
    crash(app, task_id)
    redis_server.client.set(backend.get_key_for_task(task_id).decode(), '{"status": "FAILURE", "result": 7}')

    assert reconcile_all() == 1

    assert rows_of(task_id)[0].state == "FAILURE"
