"""A database that is locked, read-only or full: only requests that write wait, and the probes report it."""

from __future__ import annotations

import contextlib
import http.client
import os
import resource
import sqlite3
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask

from microblog.accounts.models import User
from microblog.database import AutocommitExecutor, DatabaseUnavailable
from microblog.development.environment import HOST
from microblog.extensions import db
from microblog.monitoring import status
from microblog.monitoring.rules import Verdict
from tests.support.clients import PASSWORD
from tests.support.servers import Postgres, wait_for

ON_SQLITE = pytest.mark.parametrize("database", ["sqlite"])
PROMPT = 1.0  # seconds within which a request is answered that does not need the database
LIMIT = 8  # seconds that a statement waits for a lock: longer than any test waits for another request


def path_of(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))


@contextlib.contextmanager
def locked(path: Path) -> Iterator[sqlite3.Connection]:
    """Lock the database during the block, or until the connection is rolled back."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield connection


class Request(threading.Thread):
    """A request that asks for a token of the API, which is written to the database."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._connection = http.client.HTTPConnection(HOST, port, timeout=60)
        self.status, self.retry_after = 0, ""
        self.start()

    def run(self) -> None:
        """Send the request and store the response."""
        credentials = b64encode(f"susan:{PASSWORD}".encode()).decode()
        with closing(self._connection):
            self._connection.request("POST", "/api/tokens", headers={"Authorization": f"Basic {credentials}"})
            response = self._connection.getresponse()
            self.status, self.retry_after = response.status, response.headers.get("Retry-After", "")


def answers_promptly(port: int, path: str) -> bool:
    """Return whether the web server answers a request for `path` with 200 within PROMPT seconds."""
    began = time.monotonic()
    with closing(http.client.HTTPConnection(HOST, port, timeout=60)) as connection:
        connection.request("GET", path)
        return connection.getresponse().status == http.HTTPStatus.OK and time.monotonic() - began < PROMPT


@ON_SQLITE
@pytest.mark.exhaustive
def test_locked_database_does_not_stop_web_process(
    environment: dict[str, str], susan: User, start_web: Callable[[dict[str, str]], int]
) -> None:
    db.session.remove()
    port = start_web(environment | {"DATABASE_STATEMENT_TIMEOUT": str(LIMIT)})
    with locked(path_of(environment["DATABASE_URL"])) as lock:
        refused = Request(port)
        time.sleep(PROMPT)  # it waits for the lock
        for path in ("/healthz", "/static/forms.js"):
            wait_for(partial(answers_promptly, port, path), what=path)
        waited = refused.is_alive()
        refused.join()
        delayed = Request(port)
        time.sleep(PROMPT)
        lock.rollback()
        delayed.join()

    assert waited
    assert (refused.status, refused.retry_after) == (503, "5")
    assert delayed.status == 201


@contextlib.contextmanager
def full_disk(path: Path) -> Iterator[None]:
    """Let no file grow beyond the database's log, which is made larger than the files to which pytest writes."""
    db.session.execute(sa.text("PRAGMA wal_checkpoint(TRUNCATE)"))  # else the log is overwritten from its beginning
    db.session.execute(sa.text("CREATE TABLE filler AS SELECT randomblob(1000000) AS filler"))
    db.session.commit()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (os.path.getsize(f"{path}-wal"), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def read_only(path: Path) -> Iterator[None]:
    """Open the database without the right to write."""
    event = (db.engine, "connect", lambda connection, _record: connection.execute("PRAGMA query_only = ON"))
    sa.event.listen(*event)
    db.engine.dispose()
    try:
        yield
    finally:
        sa.event.remove(*event)
        db.engine.dispose()


def assert_reported(app: Flask, reason: str) -> None:
    """Assert that /readyz and the system status report that the database refuses to write."""
    db.session.remove()
    response = app.test_client().get("/readyz")
    system = status.check_status(timeout=5.0)

    assert response.status_code == 503
    assert not response.get_json()["database"]["ok"]
    assert system.verdict is Verdict.DOWN
    assert f"The database is unavailable: {reason}" in [problem.text for problem in system.problems]


@ON_SQLITE
@pytest.mark.parametrize(
    ("refusing", "reason"),
    [
        (locked, "database is locked"),
        (read_only, "attempt to write a readonly database"),
        (full_disk, "disk I/O error"),  # as SQLite calls a limit of the file size
    ],
)
def test_refused_writes_are_reported(app: Flask, make_app: Callable[..., Flask], refusing: Any, reason: str) -> None:
    impatient = app.config["SQLALCHEMY_ENGINE_OPTIONS"] | {"connect_args": {"timeout": 0.5}}
    app = make_app(SQLALCHEMY_ENGINE_OPTIONS=impatient)

    with refusing(path_of(app.config["SQLALCHEMY_DATABASE_URI"])):
        assert_reported(app, reason)

    assert app.test_client().get("/readyz").get_json()["database"] == {"ok": True}


@pytest.mark.parametrize("database", ["postgresql"])
def test_read_only_server_is_reported(app: Flask, postgres_server: Postgres) -> None:
    with postgres_server.read_only(str(db.engine.url.database)):
        assert_reported(app, "cannot execute UPDATE in a read-only transaction")


@pytest.mark.parametrize("database", ["postgresql"])
def test_connections_to_a_former_primary_are_replaced(app: Flask, postgres_server: Postgres) -> None:
    write = sa.text("UPDATE alembic_version SET version_num = version_num")
    read_only = sa.text("SHOW transaction_read_only")
    with postgres_server.read_only(str(db.engine.url.database)):
        db.session.remove()
        with db.engine.connect() as one, db.engine.connect() as other:
            assert one.scalar(read_only) == other.scalar(read_only) == "on"

    def can_write() -> bool:
        try:
            db.session.execute(write)
        except DatabaseUnavailable:
            return False
        finally:
            db.session.rollback()
        return True

    assert [can_write(), can_write()] == [False, True]


@pytest.mark.parametrize("database", ["postgresql"])
def test_statement_is_repeated_with_the_new_primary(
    app: Flask, executor: AutocommitExecutor, postgres_server: Postgres
) -> None:
    with postgres_server.read_only(str(db.engine.url.database)):
        db.session.remove()
        assert executor.execute(sa.text("SHOW transaction_read_only"))[0][0] == "on"

    executor.check_writable()
