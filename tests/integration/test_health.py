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

from microblog.extensions import db
from microblog.monitoring import readiness
from tests.support.services import RedisServer, Worker, wait_for

# The databases differ in nothing that a probe asks of them.
pytestmark = pytest.mark.parametrize("database", ["sqlite"])

THERE = {"ok": True}
SLACK = 2.0  # seconds that a loaded machine may add


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


def test_a_process_is_alive_whatever_is_away(nowhere: FlaskClient) -> None:
    response = nowhere.get("/healthz")

    assert (response.status_code, response.json) == (200, {"status": "ok"})
    assert response.headers["Cache-Control"] == "no-store"
    assert "Set-Cookie" not in response.headers


def test_it_is_ready_with_a_database_redis_and_a_worker_that_answers(client: FlaskClient, worker: Worker) -> None:
    wait_for(lambda: client.get("/readyz").status_code == 200, what="the worker answers")
    ready = client.get("/readyz")
    worker.send_signal(signal.SIGSTOP)
    hanging = client.get("/readyz")
    worker.send_signal(signal.SIGCONT)

    assert (ready.status_code, ready.json) == (200, {"database": THERE, "redis": THERE, "worker": THERE})
    assert ready.headers["Cache-Control"] == "no-store"
    assert "Set-Cookie" not in ready.headers
    assert (hanging.status_code, hanging.json["worker"]["ok"]) == (503, False)
    wait_for(lambda: client.get("/readyz").status_code == 200, what="it is ready again")


def test_without_a_worker_it_is_not_ready(client: FlaskClient) -> None:
    response = client.get("/readyz")

    assert response.status_code == 503
    assert response.json == {
        "database": THERE,
        "redis": THERE,
        "worker": {"ok": False, "error": "No worker answers."},
    }


def test_while_redis_is_away_it_is_not_ready_and_says_so_soon(
    client: FlaskClient, worker: Worker, redis_server: RedisServer
) -> None:
    with redis_server.away():
        began = time.monotonic()
        response = client.get("/readyz")
        took = time.monotonic() - began

    assert response.status_code == 503
    assert response.json["database"] == THERE
    assert not response.json["redis"]["ok"]
    assert not response.json["worker"]["ok"]
    assert took < readiness.DEADLINE + SLACK
    wait_for(lambda: client.get("/readyz").status_code == 200, what="it is ready again")


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

    monkeypatch.setitem(readiness.QUESTIONS, "database", hang)
    monkeypatch.setattr(readiness, "DEADLINE", 0.1)

    answers = [client.get("/readyz") for _ in range(3)]
    released.set()

    assert [answer.status_code for answer in answers] == [503, 503, 503]
    assert not answers[0].json["database"]["ok"]
    assert len(asked) == 1


def test_many_probes_at_once_and_many_workers_confuse_nobody(
    app: Flask, make_worker: Callable[..., Worker], redis_server: RedisServer
) -> None:
    for _ in range(2):
        make_worker(concurrency=1)
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
