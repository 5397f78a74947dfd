"""The house under test: real Redis, SMTP server, databases and workers, on free ports, gone afterwards."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.security import generate_password_hash

from microblog.accounts.models import User
from microblog.extensions import db
from tests.support import house, services
from tests.support.services import PostgresServer, RedisServer, Worker, postgres_binaries
from tests.support.smtp import SmtpServer

IN_CI = bool(os.environ.get("CI"))


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    server = RedisServer()
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def smtp_server() -> Iterator[SmtpServer]:
    server = SmtpServer()
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    binaries = postgres_binaries()
    if binaries is None:
        if IN_CI:
            pytest.fail("PostgreSQL is not installed")
        pytest.skip("PostgreSQL is not installed: its half of the tests is left out")
    server = PostgresServer(binaries)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def base_environment(redis_server: RedisServer, smtp_server: SmtpServer) -> dict[str, str]:
    """What every process of the house is told, but for its database."""
    inherited = {key: value for key, value in os.environ.items() if key in ("PATH", "HOME", "LANG", "CI")}
    return inherited | {
        "MICROBLOG_ENV": "testing",
        "PUBLIC_URL": "http://localhost",
        "REDIS_URL": redis_server.url,
        "REDIS_TIMEOUT": "1",
        "MAIL_PORT": str(smtp_server.port),
        "RATELIMIT_ENABLED": "false",
        "LOG_LEVEL": "INFO",
        # Short, so that a test need not wait long for what a lease decides.
        "TASK_LEASE": "3",
        "PYTHONUNBUFFERED": "1",
    }


@pytest.fixture(scope="session")
def migrated_sqlite(base_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with all tables, to be copied."""
    path = tmp_path_factory.mktemp("template") / "microblog.db"
    house.migrate(base_environment, f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def migrated_postgres(base_environment: dict[str, str], postgres_server: PostgresServer) -> str:
    """The name of a PostgreSQL database with all tables, to be copied."""
    house.migrate(base_environment, postgres_server.create("migrated"))
    return "migrated"


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> str:
    """Which database the test runs on: each test that uses the application runs on both."""
    name: str = request.param
    return name


@pytest.fixture
def database_url(database: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a fresh, migrated database."""
    with house.fresh_database(database, tmp_path, request) as url:
        yield url


@pytest.fixture
def environment(
    base_environment: dict[str, str],
    database_url: str,
    redis_server: RedisServer,
    smtp_server: SmtpServer,
    tmp_path: Path,
) -> dict[str, str]:
    """The environment of this test's processes; Redis and the mailbox are empty."""
    redis_server.client.flushall()
    smtp_server.reset()
    return base_environment | {"DATABASE_URL": database_url, "INSTANCE_PATH": str(tmp_path / "instance")}


@pytest.fixture
def make_app(environment: dict[str, str]) -> Iterator[Callable[..., Flask]]:
    """Makes applications in this process; settings can be replaced by name."""
    with contextlib.ExitStack() as made:
        yield lambda **overrides: made.enter_context(house.application(environment, **overrides))


@pytest.fixture
def app(make_app: Callable[..., Flask]) -> Flask:
    """The application, with an app context for the test to use."""
    return make_app()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """Nobody's browser."""
    return app.test_client()


@cache
def hash_of(password: str) -> str:
    """As set_password() makes it, but quick to check: that is meant to take its time, which here is everybody's."""
    return generate_password_hash(password, method="scrypt:1024:1:1")


@pytest.fixture
def make_user(app: Flask) -> Callable[..., User]:
    """Makes a user who is in the database."""

    def make(username: str = "susan", password: str = "cat-dog-fish") -> User:
        user = User(username=username, email=f"{username}@example.com", password_hash=hash_of(password))
        db.session.add(user)
        db.session.commit()
        return user

    return make


@pytest.fixture
def signed_in(app: Flask) -> Callable[..., FlaskClient]:
    """Makes a browser in which a user is signed in."""

    def sign_in(user: User, password: str = "cat-dog-fish") -> FlaskClient:
        client = app.test_client()
        response = client.post("/auth/login", data={"username": user.username, "password": password})
        assert response.status_code == 302, response.text
        return client

    return sign_in


@pytest.fixture
def make_worker(environment: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    """Starts workers on the test's database and Redis."""
    started: list[Worker] = []

    def make(*options: str, concurrency: int = 2, **settings: str) -> Worker:
        log = tmp_path / f"worker-{len(started)}.log"
        worker = Worker(environment | settings, *options, concurrency=concurrency, log=log)
        started.append(worker)
        return worker

    yield make
    for worker in started:
        worker.stop()


@pytest.fixture
def worker(make_worker: Callable[..., Worker]) -> Worker:
    """A worker, ready."""
    return make_worker()


@pytest.fixture
def wait_for() -> Callable[..., Any]:
    """Waits for a condition instead of for time."""
    return services.wait_for
