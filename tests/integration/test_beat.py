"""Beat outlives its Redis, and its schedule comes back where Redis forgot it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import Flask
from redbeat.schedulers import RedBeatScheduler

from microblog.taskqueue.queues import EPOCH_KEY
from microblog.taskqueue.scheduler import Scheduler
from tests.support.programs import Program
from tests.support.servers import PATIENCE, RedisServer, wait_for

pytestmark = pytest.mark.parametrize("database", ["sqlite"])  # beat does not use it

Start = Callable[[], Program]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """What beats have written so far."""
    return tmp_path / "beat.log"


@pytest.fixture
def start_beat(environment: dict[str, str], log: Path) -> Iterator[Start]:
    """Starts a beat that reconciles twice a second."""
    started: list[Program] = []

    def start() -> Program:
        settings = environment | {"RECONCILE_INTERVAL": "0.5"}
        beat = Program(["celery", "-A", "celery_app", "beat"], settings, stdout=log)
        started.append(beat)
        return beat

    yield start
    for beat in started:
        if beat.poll() is None:
            beat.send_signal(signal.SIGKILL)
            beat.wait()


def scheduled(redis_server: RedisServer) -> bool:
    """Whether a message of the schedule has come since the last look."""
    return bool(redis_server.client.delete("default"))


def test_beat_schedules(start_beat: Start, redis_server: RedisServer) -> None:
    start_beat()

    wait_for(lambda: scheduled(redis_server))
    wait_for(lambda: scheduled(redis_server), what="and again")
    assert redis_server.client.exists(EPOCH_KEY), "since when Redis remembers is known before there is any job"


@pytest.mark.exhaustive
def test_beat_outlives_a_redis_that_dies_and_comes_back_empty(
    start_beat: Start, redis_server: RedisServer, log: Path
) -> None:
    beat = start_beat()
    wait_for(lambda: scheduled(redis_server))

    with redis_server.away():
        wait_for(lambda: "the schedule waits for Redis" in log.read_text(), what="it has noticed")

    wait_for(lambda: scheduled(redis_server), what="it goes on")
    assert beat.poll() is None


def test_a_second_beat_waits_for_the_first_to_end(start_beat: Start, redis_server: RedisServer) -> None:
    first = start_beat()
    wait_for(lambda: scheduled(redis_server))
    start_beat()

    first.terminate()
    first.wait(PATIENCE)
    redis_server.client.delete("default")  # what the first one sent

    wait_for(lambda: scheduled(redis_server), what="the second goes on")


@pytest.mark.exhaustive
def test_what_redis_forgot_while_a_beat_waited_for_its_turn_is_scheduled_all_the_same(
    start_beat: Start, redis_server: RedisServer
) -> None:
    first = start_beat()
    wait_for(lambda: scheduled(redis_server))
    [statics] = redis_server.client.keys("microblog:redbeat:*statics*")
    redis_server.client.delete(statics)
    start_beat()
    wait_for(lambda: redis_server.client.exists(statics), what="the second has stored its schedule")

    first.send_signal(signal.SIGKILL)
    first.wait()
    redis_server.client.flushall()

    wait_for(lambda: scheduled(redis_server))


@pytest.mark.exhaustive
def test_beat_ends_when_told_to_though_redis_is_away(start_beat: Start, redis_server: RedisServer) -> None:
    beat = start_beat()
    wait_for(lambda: scheduled(redis_server))

    with redis_server.away():
        beat.terminate()
        beat.wait(PATIENCE)


@pytest.mark.exhaustive
def test_a_signal_that_is_lost_in_the_middle_of_publishing_ends_beat_all_the_same(
    app: Flask, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Celery's handler closes the scheduler and raises SystemExit, which kombu may take for a broken connection."""
    scheduler = Scheduler(app=app.extensions["celery"])

    def is_told_to_end(self: RedBeatScheduler) -> float:
        scheduler.close()
        return 1.0

    monkeypatch.setattr(RedBeatScheduler, "tick", is_told_to_end)

    with pytest.raises(SystemExit):
        scheduler.tick()
    assert redis_server.client.exists(scheduler.lock_key), "the lock is kept as long as the tick takes"
    scheduler.close()
    assert not redis_server.client.exists(scheduler.lock_key)
