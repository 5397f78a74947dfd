"""What the processes of pytest share: one PostgreSQL server, and the migrated templates of the databases."""

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
    """The server; its cluster takes seconds to make, during which the processes of pytest collect the tests."""

    def __init__(self, binary: str) -> None:
        # Autovacuum collects statistics at any time, and the planner may then choose another plan.
        self._server = PostgresServer(str(Path(binary).parent), "autovacuum=off")
        self.port = self._server.port
        self._start = threading.Thread(target=self._server.start)
        self._start.start()

    def stop(self) -> None:
        self._start.join()
        self._server.stop()


_server = pytest.StashKey[SharedPostgres]()


def _started(config: pytest.Config) -> SharedPostgres | None:
    """Return the server that this process started, now if need be; None if PostgreSQL is not installed."""
    binary = external.POSTGRESQL.find()
    if _server not in config.stash and binary is not None:
        config.stash[_server] = SharedPostgres(binary)
    return config.stash.get(_server, None)


def tell(node: WorkerController) -> None:
    """Tell a process of pytest-xdist the port of the server."""
    server = _started(node.config)
    node.workerinput[PORT] = server and server.port


def stop(config: pytest.Config) -> None:
    """Stop the server, if this process started it."""
    if _server in config.stash:
        config.stash[_server].stop()


def postgres_port(config: pytest.Config) -> int:
    """The port of the server."""
    if hasattr(config, "workerinput"):
        return int(config.workerinput[PORT])
    server = _started(config)
    assert server is not None
    return server.port


def process() -> str:
    """The name of this process of pytest."""
    return os.environ.get("PYTEST_XDIST_WORKER", "main")


def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The temporary folder of all processes of pytest."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let no other process inside such a block with the same `path`."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
