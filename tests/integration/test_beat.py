"""Beat survives an outage of Redis, and restores its schedule if Redis has lost it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import Flask
from redbeat.schedulers import RedBeatScheduler

from microblog.taskqueue.queues import DATA_SINCE_KEY
from microblog.taskqueue.scheduler import Scheduler
from tests.support.programs import ScriptProcess
from tests.support.servers import TIMEOUT, RedisServer, wait_for

pytestmark = pytest.mark.parametrize("database", ["sqlite"])  # beat does not use it

Start = Callable[[], ScriptProcess]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """The log file of all beat processes."""
    return tmp_path / "beat.log"


@pytest.fixture
def start_beat(environment: dict[str, str], log: Path) -> Iterator[Start]:
    """Return a function that starts a beat with a reconcile interval of half a second."""
    started: list[ScriptProcess] = []

    def start() -> ScriptProcess:
        settings = environment | {"RECONCILE_INTERVAL": "0.5"}
        beat = ScriptProcess(["celery", "-A", "celery_app", "beat"], settings, stdout=log)
        started.append(beat)
        return beat

    yield start
    for beat in started:
        beat.kill()


def scheduled(redis_server: RedisServer) -> bool:
    """Return True if beat has published a message since the last call."""
    return bool(redis_server.client.delete("default"))


def test_beat_publishes_scheduled_tasks(start_beat: Start, redis_server: RedisServer) -> None:
    start_beat()

    wait_for(lambda: scheduled(redis_server))
    wait_for(lambda: scheduled(redis_server), what="beat publishes a second message")
    assert redis_server.client.exists(DATA_SINCE_KEY), "beat marks a new Redis before the first job"


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
    redis_server.client.delete("default")  # messages of the first beat

    wait_for(lambda: scheduled(redis_server), what="the second beat takes over")


@pytest.mark.exhaustive
def test_waiting_beat_restores_schedule_lost_by_redis(start_beat: Start, redis_server: RedisServer) -> None:
    first = start_beat()
    wait_for(lambda: scheduled(redis_server))
    [statics] = redis_server.client.keys("microblog:redbeat:*statics*")
    redis_server.client.delete(statics)
    start_beat()
    wait_for(lambda: redis_server.client.exists(statics), what="the second beat stores its schedule")

    first.kill()
    redis_server.client.flushall()

    wait_for(lambda: scheduled(redis_server))


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
