"""Who is known to be there, through faults; what is said where nobody is there at all; how queues are measured."""

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
from tests.support.servers import PATIENCE, RedisServer, Worker, wait_for

SOON = 60.0  # seconds: commands that wait for Redis would wait without end, and a loaded machine adds some
ON_SQLITE = pytest.mark.parametrize("database", ["sqlite"])  # the databases differ in nothing that is asked there


@ON_SQLITE
@pytest.mark.exhaustive
def test_a_worker_that_was_killed_is_down_for_a_while_and_then_forgotten(
    app: Flask, make_worker: Callable[..., Worker]
) -> None:
    worker = make_worker()
    wait_for(lambda: query_workers(1.0).up)

    worker.kill()

    run = app.test_cli_runner().invoke
    result = run(args=["tasks", "workers", "--timeout", "0.3"])
    assert result.exit_code == 3
    assert [line.split()[:2] for line in result.stdout.splitlines()[1:]] == [[worker.name, "down"]]
    assert result.stderr.splitlines()[-1] == "No worker answers."
    app.config["WORKER_FORGOTTEN_AFTER"] = 1.0
    wait_for(lambda: not registered_workers())
    assert run(args=["tasks", "workers", "--timeout", "0.3"]).stdout == ""


@ON_SQLITE
def test_a_worker_that_ends_is_not_missed(app: Flask, make_worker: Callable[..., Worker]) -> None:
    worker = make_worker()
    wait_for(registered_workers)

    worker.process.terminate()
    worker.process.wait(PATIENCE)

    assert registered_workers() == {}


@ON_SQLITE
@pytest.mark.exhaustive
def test_a_worker_signs_in_again_where_redis_forgot_it(
    app: Flask, make_worker: Callable[..., Worker], redis_server: RedisServer
) -> None:
    worker = make_worker()

    with redis_server.away():
        pass

    wait_for(lambda: worker.name in registered_workers())


@ON_SQLITE
class TestAway:
    COMMANDS = ("workers", "active", "reserved", "scheduled", "revoked", "registered", "queues", "schedule")

    def test_without_a_worker_there_is_a_sentence_and_an_exit_code(self, app: Flask) -> None:
        for command in self.COMMANDS[:6]:
            result = app.test_cli_runner().invoke(args=["tasks", command, "--timeout", "0.2"])

            assert (result.exit_code, result.stdout, result.stderr) == (3, "", "No worker answers.\n")
            as_json = app.test_cli_runner().invoke(args=["tasks", command, "--timeout", "0.2", "--json"])
            assert (as_json.exit_code, json.loads(as_json.stdout)) == (3, [])

    def test_without_a_beat_the_schedule_says_so(self, app: Flask) -> None:
        result = app.test_cli_runner().invoke(args=["tasks", "schedule", "--json"])

        assert result.exit_code == 1
        assert result.stderr == "No beat is running: nothing of this is sent.\n"
        entries = {entry["name"]: entry for entry in json.loads(result.stdout)}
        assert (entries["reconcile"]["every"], entries["reconcile"]["last_run_at"]) == (5.0, None)

    def test_without_redis_there_is_one_sentence_and_soon(self, make_app: Callable[..., Flask]) -> None:
        app = make_app(REDIS_URL="redis://127.0.0.1:1/0")

        for command in self.COMMANDS:
            began = time.monotonic()
            result = app.test_cli_runner().invoke(args=["tasks", command])

            assert (result.exit_code, result.stdout) == (3, "")
            assert result.stderr.startswith("Redis does not answer as it should: ")
            assert result.stderr.count("\n") == 1
            assert time.monotonic() - began < SOON


class TestMeasure:
    @pytest.mark.both_databases
    def test_the_oldest_is_the_one_that_was_published_first_whether_or_not_others_have_no_row(self, app: Flask) -> None:
        app.extensions["celery"].tasks["add"].apply_async((1, 2))
        first, second = launch_task("noop", ""), launch_task("noop", "")
        db.session.commit()

        [default] = [queue for queue in measure_queues() if queue.name == "default"]

        assert (default.length, default.consumers, default.paused) == (3, None, False)
        assert default.oldest is not None
        assert first.published_at is not None
        assert second.published_at is not None
        assert default.oldest == first.published_at < second.published_at
        assert (utcnow() - default.oldest).total_seconds() < 60

    def test_a_message_from_elsewhere_does_no_harm(self, app: Flask, redis_server: RedisServer) -> None:
        redis_server.client.lpush("mail", "not JSON", '{"headers": 7}', "[]")

        [mail] = [queue for queue in measure_queues() if queue.name == "mail"]

        assert (mail.length, mail.oldest) == (3, None)

    def test_redis_away_is_its_own_error(self, make_app: Callable[..., Flask]) -> None:
        make_app(REDIS_URL="redis://127.0.0.1:1/0")

        with pytest.raises(redis.ConnectionError):
            measure_queues()
