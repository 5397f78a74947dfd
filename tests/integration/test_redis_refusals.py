"""A Redis that answers but refuses commands ends no process, fails no job and is no crash."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from flask import Flask

from microblog.extensions import db, refuses
from microblog.notifications.pubsub import ConnectionCount
from microblog.taskqueue.launch import launch
from tests.support import tasks
from tests.support.factories import row_of, start, state_of
from tests.support.programs import ScriptProcess, all_run
from tests.support.servers import REFUSALS, RedisServer, Worker, wait_for


@pytest.mark.parametrize("database", ["sqlite"])  # the databases do not differ in this
@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", REFUSALS)
def test_refusal_delays_jobs_and_ends_no_process(
    app: Flask,
    redis_server: RedisServer,
    make_worker: Callable[..., Worker],
    start_program: Callable[..., ScriptProcess],
    tmp_path: Path,
    kind: str,
) -> None:
    release_file = tmp_path / "release"
    worker = make_worker()
    running = start(tasks.count.s(str(release_file)))
    wait_for(lambda: state_of(running) == "PROGRESS", what="the job is running")

    programs = [worker.process]

    def wait_for_line(log: Path, line: str) -> None:
        wait_for(lambda: all_run(programs) and line in log.read_text(), what=f"{line} in {log}")

    with redis_server.refusing(kind):
        launched = launch(tasks.add.s(1, 2)).id
        db.session.commit()
        assert row_of(launched).published_at is None
        programs.append(start_program("beat"))
        programs.append(start_program("worker", "--hostname", "second@tests", "--without-gossip", "--without-mingle"))
        wait_for_line(tmp_path / "beat.log", "the schedule waits for Redis")
        wait_for_line(tmp_path / "worker.log", "Trying to re")
        release_file.touch()
        wait_for_line(worker.log, "_store_result. Retrying")

    for task_id in (running, launched):
        wait_for(lambda: all_run(programs) and state_of(task_id) == "SUCCESS", what="success")  # noqa: B023
        assert (row_of(task_id).attempts, row_of(task_id).crashes) == (1, 0)
    wait_for_line(tmp_path / "worker.log", "second@tests ready")


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (redis.ReadOnlyError("You can't write against a read only replica."), True),
        (redis.exceptions.OutOfMemoryError("command not allowed when used memory > 'maxmemory'."), True),
        (redis.ResponseError("MISCONF Redis is configured to save RDB snapshots, but it is unable to persist"), True),
        (redis.ResponseError("NOREPLICAS Not enough good replicas to write."), True),
        (redis.ResponseError("UNBLOCKED force unblock from blocking operation"), True),
        (redis.ResponseError("MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'."), True),
        (redis.ResponseError("BUSY Redis is busy running a script."), True),
        (redis.ResponseError("BUSYGROUP Consumer Group name already exists"), False),
        (redis.ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value"), False),
        (redis.ResponseError("ERR unknown command"), False),
        (ValueError("OOM"), False),
    ],
)
def test_only_refusals_are_tried_again(reply: Exception, expected: bool) -> None:
    assert refuses(reply) is expected


@pytest.mark.parametrize("database", ["sqlite"])
@pytest.mark.parametrize("acknowledge", ["ack", "reject", "requeue"])
def test_message_leaves_its_place_if_it_cannot_be_acknowledged(
    app: Flask, redis_server: RedisServer, acknowledge: str
) -> None:
    """A worker would consume no more once all places were taken."""
    start(tasks.noop.s())
    with app.extensions["celery"].connection_for_read() as connection:
        channel = connection.channel()
        channel.basic_qos(0, 1, False)
        message = channel.basic_get("default", no_ack=False)
        assert not channel.qos.can_consume()

        with redis_server.refusing("OOM"), pytest.raises(redis.exceptions.OutOfMemoryError):
            message.requeue() if acknowledge == "requeue" else getattr(message, acknowledge)()

        assert channel.qos.can_consume()


@pytest.mark.parametrize("database", ["sqlite"])
@pytest.mark.exhaustive
def test_worker_consumes_again_after_acknowledgements_were_refused(
    app: Flask, redis_server: RedisServer, make_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    release_file = tmp_path / "release"
    worker = make_worker(concurrency=2)
    retrying = [start(tasks.retry_behind.s(str(release_file), 60)) for _ in range(2)]
    wait_for(lambda: [state_of(task_id) for task_id in retrying] == ["STARTED"] * 2)

    with redis_server.refusing("OOM"):
        release_file.touch()
        wait_for(lambda: worker.text().count("Couldn't ack") == 2, what="Redis refuses both acknowledgements")

    later = start(tasks.noop.s())
    wait_for(lambda: state_of(later) == "SUCCESS", what="a later task runs")


@pytest.mark.parametrize("database", ["sqlite"])
def test_worker_never_stops_reconnecting(app: Flask) -> None:
    assert app.extensions["celery"].conf.broker_connection_max_retries is None  # for kombu: no limit


def test_number_of_streams_is_reported_after_refusal(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    report = ConnectionCount(redis_server.client, lambda: 1).report

    with redis_server.refusing("READONLY"):
        report(force=True)
    assert "the number of open streams is reported later" in caplog.text

    report(force=True)
    assert list(redis_server.client.scan_iter("microblog:listening:*"))


def test_server_loads_no_snapshot_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis ends at its start if it cannot read one, and trusts one that it can read."""
    (tmp_path / "dump.rdb").write_bytes(b"not a snapshot")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    with RedisServer().running() as server:
        assert server.client.dbsize() == 0
