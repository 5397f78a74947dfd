"""Beat survives an outage of Redis, and repairs its schedule if Redis has lost or damaged a part of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from celery.schedules import schedule
from flask import Flask
from redbeat.schedulers import RedBeatScheduler

from microblog.clock import utcnow
from microblog.taskqueue.scheduler import Scheduler
from tests.support.programs import ScriptProcess
from tests.support.servers import TIMEOUT, RedisServer, wait_for

pytestmark = pytest.mark.parametrize("database", ["sqlite"])  # beat does not use it

SCHEDULE_KEY = "microblog:redbeat::schedule"
OTHER_DEFINITION = {"name": "sweep_archives", "task": "noop", "schedule": {"__type__": "interval", "every": 9999.0}}

Start = Callable[[], ScriptProcess]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """The log file of all beat processes."""
    return tmp_path / "beat.log"


@pytest.fixture
def start_beat(environment: dict[str, str], log: Path) -> Iterator[Start]:
    """Return a function that starts a beat that sends a task twice a second."""
    started: list[ScriptProcess] = []

    def start() -> ScriptProcess:
        settings = environment | {"SWEEP_INTERVAL": "0.5"}
        beat = ScriptProcess(["celery", "-A", "celery_app", "beat"], settings, stdout=log)
        started.append(beat)
        return beat

    yield start
    for beat in started:
        beat.kill()


def scheduled(redis_server: RedisServer) -> bool:
    """Return True if beat has published a message since the last call."""
    return bool(redis_server.client.delete(redis_server.key("default")))


def test_beat_publishes_scheduled_tasks(start_beat: Start, redis_server: RedisServer) -> None:
    start_beat()

    wait_for(lambda: scheduled(redis_server))
    wait_for(lambda: scheduled(redis_server), what="beat publishes a second message")


@pytest.mark.exhaustive
def test_beat_survives_restart_of_empty_redis(start_beat: Start, redis_server: RedisServer, log: Path) -> None:
    beat = start_beat()
    wait_for(lambda: scheduled(redis_server))

    with redis_server.stopped():
        wait_for(lambda: "the schedule waits for Redis" in log.read_text(), what="beat notices the outage")

    wait_for(lambda: scheduled(redis_server), what="beat continues")
    assert beat.poll() is None


@pytest.mark.exhaustive
def test_second_beat_waits_for_first_to_stop(start_beat: Start, redis_server: RedisServer) -> None:
    first = start_beat()
    wait_for(lambda: scheduled(redis_server))
    start_beat()

    first.terminate()
    first.wait(TIMEOUT)
    redis_server.client.delete(redis_server.key("default"))  # messages of the first beat

    wait_for(lambda: scheduled(redis_server), what="the second beat takes over")


def future(seconds: float) -> str:
    """Return the part of an entry that records its last run, as RedBeat stores it, in the future."""
    at = utcnow() + timedelta(seconds=seconds)
    fields = ("year", "month", "day", "hour", "minute", "second", "microsecond")
    parts = {name: getattr(at, name) for name in fields}
    return json.dumps({"last_run_at": {"__type__": "datetime", **parts}})


DAMAGES: dict[str, Callable[[Any, str], object]] = {
    "evicted": lambda client, key: client.delete(key),
    "not in schedule": lambda client, key: client.zrem(SCHEDULE_KEY, key),
    "no schedule": lambda client, key: client.delete(SCHEDULE_KEY),
    "text as schedule": lambda client, key: client.set(SCHEDULE_KEY, "text"),
    "text as entry": lambda client, key: client.set(key, "text"),
    "malformed": lambda client, key: client.hset(key, "definition", "{"),
    "list": lambda client, key: client.hset(key, "definition", "[]"),
    "malformed last run": lambda client, key: client.hset(key, "meta", '{"last_run_at": "x"}'),
    "changed": lambda client, key: client.hset(key, "definition", json.dumps(OTHER_DEFINITION)),
    "disabled": lambda client, key: client.hset(key, "definition", json.dumps(OTHER_DEFINITION | {"enabled": False})),
    "due in a year": lambda client, key: client.zadd(SCHEDULE_KEY, {key: time.time() + 365 * 24 * 3600}),
    "last run in the future": lambda client, key: client.hset(key, "meta", future(3600)),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_next_tick_repairs_schedule(app: Flask, redis_server: RedisServer, kind: str) -> None:
    client = redis_server.client
    scheduler = Scheduler(app=app.extensions["celery"])
    scheduler.setup_schedule()
    key = "microblog:redbeat:sweep_archives"
    stored = client.hget(key, "definition")
    entries = client.zcard(SCHEDULE_KEY)

    DAMAGES[kind](client, key)
    scheduler.tick()

    assert client.hget(key, "definition") == stored
    due_in = (client.zscore(SCHEDULE_KEY, key) or 0) - time.time()
    assert 0 <= due_in <= app.config["SWEEP_INTERVAL"]
    assert client.zcard(SCHEDULE_KEY) == entries
    scheduler.close()


def test_tick_deletes_entries_not_in_settings(app: Flask, redis_server: RedisServer) -> None:
    scheduler = Scheduler(app=app.extensions["celery"])
    scheduler.Entry(name="old", task="old", schedule=schedule(1), app=scheduler.app).save()
    assert redis_server.client.exists("microblog:redbeat:old")

    scheduler.tick()

    assert not redis_server.client.exists("microblog:redbeat:old")
    assert redis_server.client.zscore(SCHEDULE_KEY, "microblog:redbeat:old") is None
    scheduler.close()


@pytest.mark.exhaustive
def test_beat_stops_while_redis_is_unavailable(start_beat: Start, redis_server: RedisServer) -> None:
    beat = start_beat()
    wait_for(lambda: scheduled(redis_server))

    with redis_server.stopped():
        beat.terminate()
        beat.wait(TIMEOUT)


@pytest.mark.exhaustive
def test_beat_stops_if_system_exit_is_lost(
    app: Flask, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Celery's handler closes the scheduler and raises SystemExit, which kombu may take for a broken connection."""
    scheduler = Scheduler(app=app.extensions["celery"])

    def close_during_tick(self: RedBeatScheduler) -> float:
        scheduler.close()
        return 1.0

    monkeypatch.setattr(RedBeatScheduler, "tick", close_during_tick)

    with pytest.raises(SystemExit):
        scheduler.tick()
    assert redis_server.client.exists(scheduler.lock_key), "the lock is held until the tick has ended"
    scheduler.close()
    assert not redis_server.client.exists(scheduler.lock_key)
