"""Resources that the processes of pytest share: a PostgreSQL server and the migrated template databases."""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from xdist.workermanage import WorkerController

from tests.support import external
from tests.support.servers import PostgresServer

PORT = "postgres_port"


class SharedPostgres:
    """The PostgreSQL server, started in the background: creating its cluster takes seconds, as does test collection."""

    def __init__(self, binary: str) -> None:
        # Autovacuum may collect statistics at any time and thereby change query plans.
        self._server = PostgresServer(str(Path(binary).parent), "autovacuum=off")
        self.port = self._server.port
        self._start = threading.Thread(target=self._server.start)
        self._start.start()

    def stop(self) -> None:
        self._start.join()
        self._server.stop()


_server = pytest.StashKey[SharedPostgres]()


def _server_of(config: pytest.Config) -> SharedPostgres | None:
    """Return this process's server, and start it if necessary. None if PostgreSQL is not installed."""
    binary = external.POSTGRESQL.find()
    if _server not in config.stash and binary is not None:
        config.stash[_server] = SharedPostgres(binary)
    return config.stash.get(_server, None)


def send_port(node: WorkerController) -> None:
    """Send the port of the server to a process of pytest-xdist."""
    server = _server_of(node.config)
    node.workerinput[PORT] = server and server.port


def stop(config: pytest.Config) -> None:
    """Stop the server, if this process started it."""
    if _server in config.stash:
        config.stash[_server].stop()


def postgres_port(config: pytest.Config) -> int:
    """Return the port of the server."""
    if hasattr(config, "workerinput"):
        return int(config.workerinput[PORT])
    server = _server_of(config)
    assert server is not None
    return server.port


def process() -> str:
    """Return the name of this process of pytest."""
    return os.environ.get("PYTEST_XDIST_WORKER", "main")


def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the temporary folder that all processes of pytest share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on the file `path` during the block."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
