"""A sentinel:// URL connects every client of Redis to the current master of a group, also after a failover."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import Flask

from microblog.development.servers import free_port
from microblog.extensions import db, redis_client
from microblog.taskqueue.launch import launch
from tests.support import app_factory, tasks
from tests.support.factories import row_of, start, state_of
from tests.support.programs import ScriptProcess, all_run
from tests.support.sentinel import SENTINEL_GROUP, SentinelServer
from tests.support.servers import RedisServer, Worker, wait_for

PASSWORD = "never-in-a-log"  # the servers require none and accept any

pytestmark = pytest.mark.parametrize("database", ["sqlite"])  # the databases do not differ in this


@pytest.fixture
def master() -> Iterator[RedisServer]:
    """The first master of the group."""
    with RedisServer().running() as server:
        yield server


@pytest.fixture
def replica(master: RedisServer, tmp_path: Path) -> Iterator[RedisServer]:
    """A replica of the master, with its data, of which it writes a snapshot."""
    with RedisServer(tmp_path / "replica").running() as server:
        server.client.replicaof("127.0.0.1", master.port)
        wait_for(lambda: server.client.info("replication")["master_link_status"] == "up", what="the replica follows")
        yield server


@pytest.fixture
def sentinel_url(master: RedisServer, replica: RedisServer, tmp_path: Path) -> Iterator[str]:
    """The URL of the group. The first of its two sentinels does not run."""
    sentinel = SentinelServer(tmp_path, master.port)
    hosts = f"127.0.0.1:{free_port()},127.0.0.1:{sentinel.port}"
    url = f"sentinel://default:{PASSWORD}@{hosts}/0?master={SENTINEL_GROUP}"
    with sentinel.running(url):
        yield url


@pytest.fixture
def sentinel_app(environment: dict[str, str], sentinel_url: str, contexts: contextlib.ExitStack) -> Flask:
    """An application with the group, with its context pushed."""
    settings = environment | {"REDIS_URL": sentinel_url}
    return contexts.enter_context(app_factory.application(settings, RATELIMIT_ENABLED=True))


def limits_are_counted(app: Flask, server: RedisServer) -> bool:
    """Send a request that is limited, and return whether `server` has counted requests."""
    app.test_client().post("/auth/login")
    return bool(list(server.client.scan_iter(server.key("limits*"))))


@pytest.mark.exhaustive
def test_failover_delays_jobs_and_ends_no_process(
    sentinel_app: Flask,
    sentinel_url: str,
    master: RedisServer,
    replica: RedisServer,
    make_worker: Callable[..., Worker],
    start_program: Callable[..., ScriptProcess],
    release_file: Path,
    tmp_path: Path,
) -> None:
    worker = make_worker(REDIS_URL=sentinel_url, RECONCILE_INTERVAL="1")
    programs = [worker.process, start_program("beat", REDIS_URL=sentinel_url)]
    beat_log = tmp_path / "beat.log"
    running = start(tasks.count.s(str(release_file)))
    wait_for(lambda: state_of(running) == "PROGRESS", what="the job is running")
    wait_for(lambda: "Sending due task" in beat_log.read_text(), what="beat sends a task")
    wait_for(lambda: limits_are_counted(sentinel_app, master), what="the rate limiter uses the group")

    master.stop()
    launched = launch(tasks.add.s(1, 2)).id
    db.session.commit()
    assert row_of(launched).published_at is None
    release_file.touch()
    wait_for(lambda: replica.client.info("replication")["role"] == "master", what="the sentinel promotes the replica")
    replica.client.lpush(replica.key("default"), "not a message")  # a worker with kombu's own transport would end

    for task_id in (running, launched):
        wait_for(lambda: all_run(programs) and state_of(task_id) == "SUCCESS", what="success")  # noqa: B023
        assert (row_of(task_id).attempts, row_of(task_id).crashes) == (1, 0)
    assert redis_client.connection.info("replication")["role"] == "master"
    read = len(beat_log.read_text())
    wait_for(lambda: all_run(programs) and "Sending due task" in beat_log.read_text()[read:], what="beat continues")
    replica.client.delete(*replica.client.scan_iter(replica.key("limits*")))
    wait_for(lambda: limits_are_counted(sentinel_app, replica), what="the rate limiter uses the new master")
    assert PASSWORD not in worker.log.read_text() + beat_log.read_text()
