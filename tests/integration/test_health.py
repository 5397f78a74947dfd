"""The probes ``/healthz`` (the process is alive) and ``/readyz`` (its database, Redis and a worker are available)."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from microblog.extensions import db
from microblog.monitoring import health_routes, status
from microblog.monitoring.workers import registered_workers
from tests.support.servers import TIMEOUT, RedisServer, Worker, wait_for

# The probes use nothing in which the databases differ.
pytestmark = pytest.mark.parametrize("database", ["sqlite"])

AVAILABLE = {"ok": True}
SLACK = 60.0  # seconds that a busy machine may add
NO_EXPIRY = -1  # as the Redis command TTL reports a key that never expires; a key that has expired is -2


@pytest.fixture
def isolated_client(make_app: Callable[..., Flask], tmp_path: Path) -> FlaskClient:
    """A client of an app whose database and Redis are unavailable."""
    app = make_app(
        SQLALCHEMY_DATABASE_URI=f"sqlite:///{tmp_path}/no/such/folder/secret.db",
        REDIS_URL="redis://:secret@127.0.0.1:1/0",
        RATELIMIT_ENABLED=True,
        RATELIMIT_STORAGE_URI="redis://127.0.0.1:1/0",
    )
    return app.test_client()


def ready_now(client: FlaskClient) -> TestResponse | None:
    """Return the response of ``/readyz`` if everything is available, else None."""
    response = client.get("/readyz")
    return response if response.status_code == 200 else None


def running_checks() -> list[str]:
    """Return the names of the threads whose check is still running."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("probe-")]


def test_healthz_is_ok_without_database_and_redis(isolated_client: FlaskClient) -> None:
    response = isolated_client.get("/healthz")

    assert (response.status_code, response.get_json()) == (200, {"status": "ok"})
    assert response.headers["Cache-Control"] == "no-store"
    assert "Set-Cookie" not in response.headers


def test_readyz_requires_database_redis_and_worker(client: FlaskClient, make_worker: Callable[..., Worker]) -> None:
    worker = make_worker()
    ready = wait_for(lambda: ready_now(client), what="the worker answers")
    worker.send_signal(signal.SIGSTOP)
    hanging = client.get("/readyz")
    worker.send_signal(signal.SIGCONT)

    assert ready.status_code == 200
    assert ready.get_json() == {"database": AVAILABLE, "redis": AVAILABLE, "worker": AVAILABLE}
    assert ready.headers["Cache-Control"] == "no-store"
    assert "Set-Cookie" not in ready.headers
    assert (hanging.status_code, hanging.get_json()["worker"]["ok"]) == (503, False)
    wait_for(lambda: ready_now(client), what="the app is ready again")


def test_readyz_fails_without_worker(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "EXTRA_TIMEOUT", TIMEOUT)

    response = client.get("/readyz")

    assert response.status_code == 503
    assert response.get_json() == {
        "database": AVAILABLE,
        "redis": AVAILABLE,
        "worker": {"ok": False, "error": "No worker replied."},
    }


@pytest.mark.exhaustive
def test_readyz_fails_promptly_while_redis_is_down(
    client: FlaskClient,
    make_worker: Callable[..., Worker],
    redis_server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(status, "EXTRA_TIMEOUT", 30.0)  # enough for the database on a busy machine
    make_worker()
    with redis_server.stopped():
        began = time.monotonic()
        response = client.get("/readyz")
        took = time.monotonic() - began

    assert response.status_code == 503
    assert response.get_json()["database"] == AVAILABLE
    assert not response.get_json()["redis"]["ok"]
    assert not response.get_json()["worker"]["ok"]
    assert took < status.EXTRA_TIMEOUT + SLACK
    wait_for(lambda: ready_now(client), what="the app is ready again")


def test_readyz_fails_without_tables(app: Flask, client: FlaskClient) -> None:
    db.session.execute(sa.text("DROP TABLE task"))
    db.session.commit()

    response = client.get("/readyz")

    assert response.status_code == 503
    assert not response.get_json()["database"]["ok"]


def test_readyz_succeeds_although_a_clock_differs(
    client: FlaskClient, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "_use_database", lambda: {"database_ahead": 60.0})

    response = wait_for(lambda: ready_now(client), what="the worker answers")

    assert response.get_json() == {"database": AVAILABLE, "redis": AVAILABLE, "worker": AVAILABLE}


def test_readyz_exposes_no_secret_or_traceback(isolated_client: FlaskClient) -> None:
    response = isolated_client.get("/readyz")

    assert response.status_code == 503
    assert {part["ok"] for part in response.get_json().values()} == {False}
    assert not any(word in response.text for word in ("secret", "Error", "Traceback", "sqlite", "127.0.0.1"))


def test_hanging_check_times_out_and_runs_once(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    release, calls = threading.Event(), []

    def hang() -> dict[str, Any]:
        calls.append(True)
        release.wait()
        return {}

    monkeypatch.setattr(status, "_use_database", hang)
    monkeypatch.setattr(status, "EXTRA_TIMEOUT", 0.1)
    monkeypatch.setattr(health_routes, "PING_TIMEOUT", 0.1)

    responses = [client.get("/readyz") for _ in range(3)]
    release.set()
    wait_for(lambda: not running_checks(), what="no check is running")

    assert [response.status_code for response in responses] == [503, 503, 503]
    assert not responses[0].get_json()["database"]["ok"]
    assert len(calls) == 1


@pytest.mark.exhaustive
def test_concurrent_probes_with_several_workers(
    app: Flask,
    client: FlaskClient,
    make_worker: Callable[..., Worker],
    redis_server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for _ in range(2):
        make_worker(concurrency=1)
    wait_for(lambda: len(registered_workers()) == 2, what="both workers are registered")
    wait_for(lambda: ready_now(client), what="the workers answer")
    monkeypatch.setattr(health_routes, "PING_TIMEOUT", TIMEOUT)  # the workers may be slow on a busy machine
    statuses: list[int] = []

    def probe() -> None:
        statuses.extend(app.test_client().get("/readyz").status_code for _ in range(5))

    probes = [threading.Thread(target=probe) for _ in range(10)]
    for thread in probes:
        thread.start()
    for thread in probes:
        thread.join()

    assert statuses == [200] * 50
    left = [*redis_server.client.scan_iter("microblog:rpc:*"), *redis_server.client.scan_iter("*reply*")]
    permanent = [key for key in left if "binding" not in key and redis_server.client.ttl(key) == NO_EXPIRY]
    assert permanent == []
