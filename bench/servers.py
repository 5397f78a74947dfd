"""The servers and processes that benchmarks use: real ones, on free ports, stopped afterwards."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self
from unittest import mock

import sqlalchemy as sa
from flask import Flask

from microblog import create_app
from microblog.accounts.models import User
from microblog.development.process_manager import ManagedProcess
from microblog.development.servers import web_answers
from microblog.extensions import db
from microblog.taskqueue.models import Task
from tests.support.programs import ROOT
from tests.support.servers import REDIS_PREFIX, PostgresServer, RedisServer, free_port, postgres_binaries

OURS = "bench.worker_app"
START_TIMEOUT = 60.0  # seconds


class Servers:
    """Context manager that runs Redis, and PostgreSQL once it is first used."""

    def __init__(self) -> None:
        self._closing = contextlib.ExitStack()
        self._count = 0
        self._postgres: PostgresServer | None = None
        self.redis = RedisServer()

    def __enter__(self) -> Self:
        self.folder = Path(self._closing.enter_context(tempfile.TemporaryDirectory(prefix="microblog-bench-")))
        self.redis.start()
        self._closing.callback(self.redis.stop)
        return self

    def __exit__(self, *error: object) -> None:
        self._closing.close()

    @property
    def databases(self) -> list[str]:
        """The databases that can be measured on this machine."""
        return ["SQLite", "PostgreSQL"] if postgres_binaries() else ["SQLite"]

    @property
    def postgres(self) -> PostgresServer:
        """The running PostgreSQL server. Raises LookupError if PostgreSQL is not installed."""
        if self._postgres is None:
            binaries = postgres_binaries()
            if binaries is None:
                raise LookupError("PostgreSQL is not installed")
            self._postgres = PostgresServer(binaries, durable=True)
            self._closing.callback(self._postgres.stop)
            self._postgres.start()
        return self._postgres

    def environment(self, database: str) -> dict[str, str]:
        """Return the environment of processes that share a new, migrated database of the kind `database`."""
        self._count += 1
        folder = self.folder / f"instance-{self._count}"
        folder.mkdir()
        url = f"sqlite:///{folder / 'microblog.db'}"
        if database == "PostgreSQL":
            url = self.postgres.create(f"bench_{self._count}")
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "SECRET_KEY": "only-for-this-benchmark",
            "INSTANCE_PATH": str(folder),
            "DATABASE_URL": url,
            "REDIS_URL": self.redis.url,
            "REDIS_PREFIX": REDIS_PREFIX,
        }
        run_flask(environment, "db", "upgrade")
        return environment

    @contextlib.contextmanager
    def app(self, environment: dict[str, str]) -> Iterator[Flask]:
        """Provide the application in this process, with an app context and an empty Redis."""
        self.redis.client.flushall()
        with mock.patch.dict(os.environ, environment, clear=True):
            app = create_app()
        import bench.tasks  # noqa: F401 - registers the benchmarks' tasks

        with app.app_context():
            try:
                yield app
            finally:
                db.session.remove()
                db.engine.dispose()

    @contextlib.contextmanager
    def worker(
        self, environment: dict[str, str], module: str, *, queue: str = "", concurrency: int = 2
    ) -> Iterator[ManagedProcess]:
        """Run a Celery worker of the app in `module` that consumes `queue`, or all queues of the app.

        Yield its main process once it is ready.
        """
        command = ["celery", "-A", module, "worker", "--concurrency", str(concurrency)]
        if queue:
            command += ["--queues", queue]
        quiet = ["--without-gossip", "--without-mingle", "--loglevel", "INFO"]
        with self._process([*command, *quiet], environment) as (process, log):
            process.wait_until(lambda: " ready" in log.read_text(), "a worker", START_TIMEOUT)
            yield process

    @contextlib.contextmanager
    def beat(self, environment: dict[str, str]) -> Iterator[None]:
        """Run the application's beat; the block starts once it has sent its first task."""
        with self._process(["celery", "-A", "celery_app", "beat", "--loglevel", "INFO"], environment) as (process, log):
            process.wait_until(lambda: "Sending due task" in log.read_text(), "beat", START_TIMEOUT)
            yield

    @contextlib.contextmanager
    def web(self, environment: dict[str, str]) -> Iterator[tuple[int, int]]:
        """Run a web server with one worker process; yield its port and the id of that process."""
        port = free_port()
        command = ["gunicorn", "-c", "gunicorn.conf.py", "microblog:create_app()"]
        with self._process(command, environment | {"PORT": str(port)}) as (process, _log):
            process.wait_until(lambda: web_answers(port, "/healthz", timeout=5), "the web server", START_TIMEOUT)
            [child] = process.children()
            yield port, child

    @contextlib.contextmanager
    def _process(self, command: Sequence[str], environment: dict[str, str]) -> Iterator[tuple[ManagedProcess, Path]]:
        """Run a Python module during the block; yield the process and its log file."""
        self._count += 1
        log = self.folder / f"{command[0]}-{self._count}.log"
        process = ManagedProcess([sys.executable, "-m", *command], environment, stdout=log)
        try:
            yield process, log
        finally:
            process.stop(10)


def add_users(count: int) -> list[int]:
    """Add `count` users without a usable password. Return the ids of all users."""
    rows = [{"username": f"u{n}", "email": f"u{n}@example.com", "password_hash": ""} for n in range(count)]
    db.session.execute(sa.insert(User), rows)
    db.session.commit()
    return list(db.session.scalars(sa.select(User.id).order_by(User.id)))


def task_has_ended(task_id: str) -> bool:
    """Return whether the row of the task is finished, read in a new transaction."""
    db.session.rollback()
    return not db.session.scalar(sa.select(Task.unfinished).where(Task.id == task_id))


def session_cookie(app: Flask, user_id: int) -> str:
    """Return the Cookie header of a signed-in user. Requires an app context."""
    browser = app.test_client()
    with browser.session_transaction() as session:
        session["_user_id"] = db.session.get_one(User, user_id).get_id()
        session["_fresh"] = True
    cookie = browser.get_cookie("session")
    assert cookie is not None
    return f"session={cookie.value}"


def run_flask(environment: dict[str, str], *arguments: str) -> None:
    """Run ``flask`` with these arguments. Raises RuntimeError with its errors if it fails."""
    command = [sys.executable, "-m", "flask", "--app", "microblog", *arguments]
    completed = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if completed.returncode:
        raise RuntimeError(completed.stderr)
