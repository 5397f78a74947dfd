"""Registered workers after faults, commands without workers or Redis, and queue measurements."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest
import redis
from flask import Flask

from microblog.clock import utcnow
from microblog.extensions import db
from microblog.monitoring.queues import measure_queues
from microblog.monitoring.workers import query_workers, registered_workers
from microblog.taskqueue.launch import launch_task
from tests.support.servers import TIMEOUT, RedisServer, Worker, wait_for

TIME_LIMIT = 60.0  # seconds, enough on a busy machine; a command that waited for Redis would never return
ON_SQLITE = pytest.mark.parametrize("database", ["sqlite"])  # the database makes no difference


@ON_SQLITE
@pytest.mark.exhaustive
def test_killed_worker_is_down_then_removed(app: Flask, make_worker: Callable[..., Worker]) -> None:
    worker = make_worker()
    wait_for(lambda: query_workers(1.0).up)

    worker.kill()

    run = app.test_cli_runner().invoke
    result = run(args=["tasks", "workers", "--timeout", "0.3"])
    assert result.exit_code == 3
    assert [line.split()[:2] for line in result.stdout.splitlines()[1:]] == [[worker.name, "down"]]
    assert result.stderr.splitlines()[-1] == "No worker replied."
    app.config["WORKER_FORGOTTEN_AFTER"] = 1.0
    wait_for(lambda: not registered_workers())
    assert run(args=["tasks", "workers", "--timeout", "0.3"]).stdout == ""


@ON_SQLITE
@pytest.mark.exhaustive
def test_stopped_worker_is_unregistered(app: Flask, make_worker: Callable[..., Worker]) -> None:
    worker = make_worker()
    wait_for(registered_workers)

    worker.process.terminate()
    worker.process.wait(TIMEOUT)

    assert registered_workers() == {}


@ON_SQLITE
@pytest.mark.exhaustive
def test_worker_registers_again_after_redis_data_loss(
    app: Flask, make_worker: Callable[..., Worker], redis_server: RedisServer
) -> None:
    worker = make_worker()

    with redis_server.stopped():
        pass

    wait_for(lambda: worker.name in registered_workers())


@ON_SQLITE
class TestUnavailable:
    COMMANDS = ("workers", "active", "reserved", "scheduled", "revoked", "registered", "queues", "schedule")

    def test_commands_fail_without_worker(self, app: Flask) -> None:
        for command in self.COMMANDS[:6]:
            result = app.test_cli_runner().invoke(args=["tasks", command, "--timeout", "0.2"])

            assert (result.exit_code, result.stdout, result.stderr) == (3, "", "No worker replied.\n")
            as_json = app.test_cli_runner().invoke(args=["tasks", command, "--timeout", "0.2", "--json"])
            assert (as_json.exit_code, json.loads(as_json.stdout)) == (3, [])

    def test_schedule_warns_without_beat(self, app: Flask) -> None:
        result = app.test_cli_runner().invoke(args=["tasks", "schedule", "--json"])

        assert result.exit_code == 1
        assert result.stderr == "Beat is not running: none of these tasks is sent.\n"
        entries = {entry["name"]: entry for entry in json.loads(result.stdout)}
        assert (entries["sweep_archives"]["every"], entries["sweep_archives"]["last_sent_at"]) == (60.0, None)

    def test_commands_fail_promptly_without_redis(self, make_app: Callable[..., Flask]) -> None:
        app = make_app(REDIS_URL="redis://127.0.0.1:1/0")

        for command in self.COMMANDS:
            began = time.monotonic()
            result = app.test_cli_runner().invoke(args=["tasks", command])

            assert (result.exit_code, result.stdout) == (3, "")
            assert result.stderr.startswith("Redis is unavailable: ")
            assert result.stderr.count("\n") == 1
            assert time.monotonic() - began < TIME_LIMIT


class TestMeasure:
    @pytest.mark.both_databases
    def test_oldest_message_is_first_published(self, app: Flask) -> None:
        app.extensions["celery"].tasks["add"].apply_async((1, 2))
        first = launch_task("noop", "")
        db.session.commit()
        second = launch_task("noop", "")
        db.session.commit()

        [default] = [queue for queue in measure_queues() if queue.name == "default"]

        assert (default.length, default.consumers, default.paused) == (3, None, False)
        assert default.oldest is not None
        assert first.published_at is not None
        assert second.published_at is not None
        assert default.oldest == first.published_at < second.published_at
        assert (utcnow() - default.oldest).total_seconds() < 60

    def test_foreign_messages_have_no_age(self, app: Flask, redis_server: RedisServer) -> None:
        redis_server.client.lpush(redis_server.key("mail"), "not JSON", '{"headers": 7}', "[]")

        [mail] = [queue for queue in measure_queues() if queue.name == "mail"]

        assert (mail.length, mail.oldest) == (3, None)

    def test_measure_raises_without_redis(self, make_app: Callable[..., Flask]) -> None:
        make_app(REDIS_URL="redis://127.0.0.1:1/0")

        with pytest.raises(redis.ConnectionError):
            measure_queues()
