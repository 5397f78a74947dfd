"""Fixtures with real Redis, SMTP, database and worker processes, which listen on free ports and end with the tests."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.security import generate_password_hash
from xdist.remote import Producer
from xdist.workermanage import WorkerController

from microblog.accounts.models import User
from microblog.extensions import db
from tests.support import app_factory, external, process_state, servers, sharing
from tests.support.app_factory import Applications
from tests.support.bucket import BucketServer
from tests.support.clients import PASSWORD, signed_in_client
from tests.support.databases import Database, PostgresDatabase, SqliteDatabase
from tests.support.scheduling import FileOrBrowserScheduling
from tests.support.servers import WORKER_KEY_PREFIXES, Postgres, RedisServer, SharedWorkers, Worker
from tests.support.smtp import SmtpServer


def pytest_sessionstart() -> None:
    """Make the tests independent of the process that starts them."""
    process_state.normalize()


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> FileOrBrowserScheduling:
    """Let a single process run all browser tests."""
    return FileOrBrowserScheduling(config, log)


def pytest_configure_node(node: WorkerController) -> None:
    """Send a process of pytest-xdist the port of the PostgreSQL server."""
    sharing.send_port(node)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the PostgreSQL server, if this process started it."""
    sharing.stop(config)


def pytest_report_header() -> list[str]:
    """List the external programs with their versions, those that are not installed, and the services that start."""
    return [
        "programs: " + ", ".join(program.version() for program in external.ALL),
        "services: one PostgreSQL server for all processes; Redis, SMTP, workers and a web server for each, on demand",
    ]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Report the number of tests skipped because a program is missing, and how to install it."""
    reasons = Counter(report.longrepr[2] for report in terminalreporter.stats.get("skipped", ()))
    skipped = {program: reasons[f"Skipped: {program.reason}"] for program in external.ALL}
    for program, count in skipped.items():
        if count:
            terminalreporter.write_line(f"Tests skipped: {count}. {program.reason}.", yellow=True)


@pytest.fixture(scope="session")
def running_bucket_server() -> Iterator[BucketServer]:
    """The server of buckets of this process."""
    with BucketServer().running() as server:
        yield server


@pytest.fixture
def bucket_server(running_bucket_server: BucketServer) -> BucketServer:
    """The server of buckets, with one that is empty. Its `environment` lets programs use it."""
    running_bucket_server.reset()
    return running_bucket_server


@pytest.fixture(scope="session")
def idle_redis_server() -> Iterator[RedisServer]:
    """The Redis server of the tests that use no worker or start their own."""
    with RedisServer().running() as server:
        yield server


@pytest.fixture(scope="session")
def shared_redis_servers() -> Iterator[Callable[[str], RedisServer]]:
    """A function that returns the Redis server of the tests that share a worker on the given kind of database."""
    with contextlib.ExitStack() as running:
        yield cache(lambda database: running.enter_context(RedisServer(kept=WORKER_KEY_PREFIXES).running()))


@pytest.fixture
def redis_server(request: pytest.FixtureRequest) -> RedisServer:
    """The Redis server of this test."""
    server: RedisServer
    if "worker" in request.fixturenames and "database" in request.fixturenames:
        server = request.getfixturevalue("shared_redis_servers")(request.getfixturevalue("database"))
    else:
        server = request.getfixturevalue("idle_redis_server")
    return server


@pytest.fixture(scope="session")
def smtp_server() -> Iterator[SmtpServer]:
    server = SmtpServer()
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def postgres_server(pytestconfig: pytest.Config) -> Postgres:
    """The PostgreSQL server that all processes of pytest share."""
    external.POSTGRESQL.require()
    server = Postgres(sharing.postgres_port(pytestconfig))
    server.wait()
    return server


@pytest.fixture(scope="session")
def base_environment(smtp_server: SmtpServer) -> dict[str, str]:
    """The environment of the application's processes, without the URLs of the database and Redis."""
    external.REDIS.require()
    inherited = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "CI", "TMPDIR", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
    return {name: os.environ[name] for name in inherited if name in os.environ} | {
        "MICROBLOG_ENV": "testing",
        "PUBLIC_URL": "http://localhost",
        "REDIS_TIMEOUT": "5",
        "MAIL_PORT": str(smtp_server.port),
        "RATELIMIT_ENABLED": "false",
        "REDIS_PREFIX": servers.REDIS_PREFIX,
        "LOG_LEVEL": "INFO",
        "RECONCILE_INTERVAL": "3600",  # tests call reconcile_all()
        # Long, so that no lease expires on a busy machine. Tests of expiring leases set their own.
        "TASK_LEASE": "60",
        "PYTHONUNBUFFERED": "1",
    }


@pytest.fixture(scope="session")
def migrated_sqlite(base_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The path of a migrated SQLite file that serves as a template."""
    folder = sharing.folder(tmp_path_factory)
    path, new = folder / "migrated.db", folder / "new.db"
    with sharing.locked(folder / "sqlite.lock"):
        if not path.exists():
            app_factory.migrate(base_environment, f"sqlite:///{new}")
            new.rename(path)
    return path


@pytest.fixture(scope="session")
def migrated_postgres(
    base_environment: dict[str, str], postgres_server: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """The name of a migrated PostgreSQL database that serves as a template."""
    with sharing.locked(sharing.folder(tmp_path_factory) / "postgres.lock"):
        if not postgres_server.has("migrated"):
            app_factory.migrate(base_environment, postgres_server.create("new"))
            postgres_server.rename("new", "migrated")
    return "migrated"


@pytest.fixture(scope="session")
def database_of(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Database]:
    """A function that returns this process's database of a kind, "sqlite" or "postgresql"."""

    @cache
    def of_kind(kind: str) -> Database:
        if kind == "sqlite":
            return SqliteDatabase(request.getfixturevalue("migrated_sqlite"), tmp_path_factory.mktemp("database"))
        template: str = request.getfixturevalue("migrated_postgres")
        return PostgresDatabase(request.getfixturevalue("postgres_server"), template, f"tests_{sharing.process()}")

    return of_kind


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrize each test that uses a database with its kinds, unless the test names the kind itself.

    A test with the mark `both_databases` runs on both; `both_databases(each_run=False)` leaves PostgreSQL to the
    exhaustive run, also where the module or class has the mark. Any other runs on SQLite, or if it is `exhaustive`, on
    PostgreSQL, which is what sites use.
    """
    if "database" in metafunc.fixturenames and not _names_database(metafunc):
        mark = metafunc.definition.get_closest_marker("both_databases")
        if mark is None:
            exhaustive = metafunc.definition.get_closest_marker("exhaustive") is not None
            metafunc.parametrize("database", ["postgresql" if exhaustive else "sqlite"])
        else:
            marks = () if mark.kwargs.get("each_run", True) else pytest.mark.exhaustive
            metafunc.parametrize("database", ["sqlite", pytest.param("postgresql", marks=marks)])


def _names_database(metafunc: pytest.Metafunc) -> bool:
    parameters = [mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")]
    return any("database" in ((names,) if isinstance(names, str) else names) for names in parameters)


@pytest.fixture
def database() -> str:
    """The kind of database that the test runs on, set by pytest_generate_tests()."""
    return "sqlite"


@pytest.fixture
def database_url(database: str, database_of: Callable[[str], Database]) -> str:
    """The URL of an empty, migrated database."""
    instance = database_of(database)
    instance.empty()
    return instance.url


@pytest.fixture(scope="session")
def instance_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The instance folder that the applications of this process share."""
    return tmp_path_factory.mktemp("instance")


@pytest.fixture
def environment(
    base_environment: dict[str, str],
    database_url: str,
    redis_server: RedisServer,
    smtp_server: SmtpServer,
    instance_path: Path,
) -> dict[str, str]:
    """The environment of this test's processes. Database, Redis, mailbox and instance folder are empty."""
    redis_server.empty()
    smtp_server.reset()
    for path in instance_path.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return base_environment | {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_server.url,
        "INSTANCE_PATH": str(instance_path),
    }


@pytest.fixture(scope="session")
def applications() -> Applications:
    return Applications()


@pytest.fixture
def contexts() -> Iterator[contextlib.ExitStack]:
    """A stack of the pushed application contexts, which pops them in reverse order."""
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def make_app(environment: dict[str, str], contexts: contextlib.ExitStack) -> Callable[..., Flask]:
    """A function that creates an application in this process. Its keyword arguments replace settings."""
    return lambda **overrides: contexts.enter_context(app_factory.application(environment, **overrides))


@pytest.fixture
def app(environment: dict[str, str], applications: Applications, contexts: contextlib.ExitStack) -> Flask:
    """The application, with its context pushed.

    The tests of this process share it, so no routes can be added to it: use make_app() for that.
    """
    return contexts.enter_context(applications.borrow(environment))


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """A test client without a signed-in user."""
    return app.test_client()


# Hashing is slow on purpose; cheap parameters save that time in every test.
quick_hash = partial(generate_password_hash, method="scrypt:1024:1:1")
hash_of = cache(quick_hash)  # the same format as set_password() stores


@pytest.fixture(scope="session", autouse=True)
def _quick_hashes() -> Iterator[None]:
    """Use the cheap parameters for registrations and password changes, too."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("models", "services"):
            patch.setattr(f"microblog.accounts.{module}.generate_password_hash", quick_hash)
        yield


@pytest.fixture
def make_user(app: Flask) -> Callable[..., User]:
    """A function that creates a user in the database."""

    def make(username: str = "susan", password: str = PASSWORD) -> User:
        user = User(username=username, email=f"{username}@example.com", password_hash=hash_of(password))
        db.session.add(user)
        db.session.commit()
        return user

    return make


@pytest.fixture
def signed_in(app: Flask) -> Callable[..., FlaskClient]:
    """A function that returns a test client in which a user is signed in."""
    return partial(signed_in_client, app)


@pytest.fixture
def make_worker(environment: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    """A function that starts a worker on the test's database and Redis."""
    started: list[Worker] = []

    def make(*options: str, concurrency: int = 2, gossip: bool = False, **settings: str) -> Worker:
        log = tmp_path / f"worker-{len(started)}.log"
        worker = Worker(environment | settings, *options, concurrency=concurrency, gossip=gossip, log=log)
        started.append(worker)
        return worker

    yield make
    for worker in started:
        worker.stop()


@pytest.fixture(scope="session")
def shared_workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedWorkers]:
    workers = SharedWorkers(tmp_path_factory.mktemp("workers"))
    yield workers
    workers.stop()


@pytest.fixture
def worker(environment: dict[str, str], redis_server: RedisServer, shared_workers: SharedWorkers) -> Iterator[Worker]:
    """A running worker that tests share. A test that stops or controls a worker uses make_worker() instead."""
    with shared_workers.borrow(environment, redis_server) as worker:
        yield worker


@pytest.fixture
def wait_for() -> Callable[..., Any]:
    """The function servers.wait_for(), which waits for a condition instead of a fixed time."""
    return servers.wait_for
