"""A SQLite database that is locked: only requests that write wait."""

from __future__ import annotations

import contextlib
import http.client
import sqlite3
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from microblog.accounts.models import User
from microblog.development.environment import HOST
from microblog.extensions import db
from tests.support.clients import PASSWORD
from tests.support.servers import wait_for

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
