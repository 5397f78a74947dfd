"""What the probes are told: the process lives; the parts it needs are there, or which of them is not."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from microblog.extensions import db
from microblog.monitoring import health_routes
from microblog.monitoring.workers import registered_workers
from tests.support.servers import PATIENCE, RedisServer, Worker, wait_for

# The databases differ in nothing that a probe asks of them.
pytestmark = pytest.mark.parametrize("database", ["sqlite"])

THERE = {"ok": True}
SLACK = 60.0  # seconds that a busy machine may add


@pytest.fixture
def nowhere(make_app: Callable[..., Flask], tmp_path: Path) -> FlaskClient:
    """An app that finds neither its database nor Redis."""
    app = make_app(
        SQLALCHEMY_DATABASE_URI=f"sqlite:///{tmp_path}/no/such/folder/secret.db",
        REDIS_URL="redis://:secret@127.0.0.1:1/0",
        RATELIMIT_ENABLED=True,
        RATELIMIT_STORAGE_URI="redis://127.0.0.1:1/0",
    )
    return app.test_client()


def ready_now(client: FlaskClient) -> TestResponse | None:
    """The answer that all is there; None if something is not."""
    response = client.get("/readyz")
    return response if response.status_code == 200 else None


def asking() -> list[str]:
    """The parts that have yet to answer."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("ask-")]


def test_a_process_is_alive_whatever_is_away(nowhere: FlaskClient) -> None:
    response = nowhere.get("/healthz")

    assert (response.status_code, response.json) == (200, {"status": "ok"})
    assert response.headers["Cache-Control"] == "no-store"
    assert "Set-Cookie" not in response.headers


def test_it_is_ready_with_a_database_redis_and_a_worker_that_answers(
    client: FlaskClient, make_worker: Callable[..., Worker]
) -> None:
    worker = make_worker()
    ready = wait_for(lambda: ready_now(client), what="the worker answers")
    worker.send_signal(signal.SIGSTOP)
    hanging = client.get("/readyz")
    worker.send_signal(signal.SIGCONT)

    assert (ready.status_code, ready.json) == (200, {"database": THERE, "redis": THERE, "worker": THERE})
    assert ready.headers["Cache-Control"] == "no-store"
    assert "Set-Cookie" not in ready.headers
    assert (hanging.status_code, hanging.json["worker"]["ok"]) == (503, False)
    wait_for(lambda: ready_now(client), what="it is ready again")


def test_without_a_worker_it_is_not_ready(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_routes, "DEADLINE", PATIENCE)

    response = client.get("/readyz")

    assert response.status_code == 503
    assert response.json == {
        "database": THERE,
        "redis": THERE,
        "worker": {"ok": False, "error": "No worker answers."},
    }


def test_while_redis_is_away_it_is_not_ready_and_says_so_soon(
    client: FlaskClient,
    make_worker: Callable[..., Worker],
    redis_server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(health_routes, "DEADLINE", 30.0)  # enough for the database, however busy the machine is
    make_worker()
    with redis_server.away():
        began = time.monotonic()
        response = client.get("/readyz")
        took = time.monotonic() - began

    assert response.status_code == 503
    assert response.json["database"] == THERE
    assert not response.json["redis"]["ok"]
    assert not response.json["worker"]["ok"]
    assert took < health_routes.DEADLINE + SLACK
    wait_for(lambda: ready_now(client), what="it is ready again")


def test_a_database_without_our_tables_is_not_ready(app: Flask, client: FlaskClient) -> None:
    db.session.execute(sa.text("DROP TABLE task"))
    db.session.commit()

    response = client.get("/readyz")

    assert response.status_code == 503
    assert not response.json["database"]["ok"]


def test_the_answer_has_no_secret_and_no_traceback(nowhere: FlaskClient) -> None:
    response = nowhere.get("/readyz")

    assert response.status_code == 503
    assert {part["ok"] for part in response.json.values()} == {False}
    assert not any(word in response.text for word in ("secret", "Error", "Traceback", "sqlite", "127.0.0.1"))


def test_a_part_that_hangs_is_given_up_and_not_asked_twice(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    released, asked = threading.Event(), []

    def hang() -> None:
        asked.append(True)
        released.wait()

    monkeypatch.setitem(health_routes.QUESTIONS, "database", hang)
    monkeypatch.setattr(health_routes, "DEADLINE", 0.1)

    answers = [client.get("/readyz") for _ in range(3)]
    released.set()
    wait_for(lambda: not asking(), what="nobody is being asked any more")

    assert [answer.status_code for answer in answers] == [503, 503, 503]
    assert not answers[0].json["database"]["ok"]
    assert len(asked) == 1


@pytest.mark.exhaustive
def test_many_probes_at_once_and_many_workers_confuse_nobody(
    app: Flask,
    client: FlaskClient,
    make_worker: Callable[..., Worker],
    redis_server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for _ in range(2):
        make_worker(concurrency=1)
    wait_for(lambda: len(registered_workers()) == 2, what="both have signed in")
    wait_for(lambda: ready_now(client), what="they hear what they are asked")
    for limit in ("DEADLINE", "PING_TIMEOUT"):
        monkeypatch.setattr(health_routes, limit, PATIENCE)  # they may take their time on a busy machine
    statuses: list[int] = []

    def probe() -> None:
        statuses.extend(app.test_client().get("/readyz").status_code for _ in range(5))

    probes = [threading.Thread(target=probe) for _ in range(10)]
    for thread in probes:
        thread.start()
    for thread in probes:
        thread.join()

    assert statuses == [200] * 50
    left = [key for key in redis_server.client.scan_iter("*reply*") if "binding" not in key]
    assert len(left) <= 1, "each question leaves a key behind"
