"""A database that moves, hangs or has few connections stops no program for more than 15 seconds."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import psycopg
import pytest
import sqlalchemy as sa
from celery.exceptions import SoftTimeLimitExceeded
from flask import Flask
from sqlalchemy.exc import IntegrityError

from microblog.accounts.models import User
from microblog.database import AutocommitExecutor, DatabaseUnavailable
from microblog.development.servers import web_answers
from microblog.error_reports.models import ErrorReport
from microblog.extensions import db
from tests.support import app_factory, tasks
from tests.support.factories import start, states_of
from tests.support.proxy import TcpProxy
from tests.support.servers import Postgres, Worker, wait_for

LIMIT = 15.0  # seconds after which everything goes on
ON_POSTGRESQL = pytest.mark.parametrize("database", ["postgresql"])


@pytest.fixture
def proxy(postgres_server: Postgres) -> Iterator[TcpProxy]:
    """A proxy of the PostgreSQL server."""
    proxy = TcpProxy(postgres_server.port)
    yield proxy
    proxy.close()


@pytest.fixture
def behind_proxy(environment: dict[str, str], proxy: TcpProxy) -> dict[str, str]:
    """The environment of processes that use the database through the proxy."""
    return environment | {"DATABASE_URL": proxy.through(environment["DATABASE_URL"])}


def value_of(query: Callable[[], Any]) -> Any:
    """Return the value of a query, or the error of a connection that cannot be used or of a time limit."""
    try:
        return query()
    except (DatabaseUnavailable, psycopg.OperationalError, SoftTimeLimitExceeded) as error:
        return error


def small_pool(app: Flask, **more: Any) -> dict[str, Any]:
    """Return the options of an engine with one connection and a short timeout of the pool."""
    options: dict[str, Any] = app.config["SQLALCHEMY_ENGINE_OPTIONS"]
    return options | {"pool_size": 1, "pool_timeout": 0.1} | more


@ON_POSTGRESQL
def test_connections_are_limited_by_server_and_kernel(app: Flask) -> None:
    names = ("statement_timeout", "TimeZone", "jit")
    settings = {name: db.session.scalar(sa.text(f"SHOW {name}")) for name in names}
    connection: Any = db.session.connection().connection.driver_connection

    assert settings == {"statement_timeout": "10s", "TimeZone": "UTC", "jit": "off"}
    with socket.socket(fileno=os.dup(connection.fileno())) as copy:
        assert copy.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert copy.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 5
        assert copy.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 10_000


@ON_POSTGRESQL
def test_long_statement_counts_as_unavailable_database(environment: dict[str, str]) -> None:
    limited = app_factory.application(environment | {"DATABASE_STATEMENT_TIMEOUT": "1"})
    with limited, pytest.raises(DatabaseUnavailable, match="statement timeout"):
        db.session.execute(sa.text("SELECT pg_sleep(60)"))


@ON_POSTGRESQL
@pytest.mark.exhaustive
def test_statement_continues_on_another_connection(behind_proxy: dict[str, str], proxy: TcpProxy) -> None:
    with app_factory.application(behind_proxy | {"DATABASE_STATEMENT_TIMEOUT": "1"}) as app:
        executor: AutocommitExecutor = app.extensions["celery"].executor
        executor.execute(sa.text("SELECT 1"))
        with proxy.host_gone():
            pass

        assert value_of(lambda: executor.execute(sa.text("SELECT 2"))[0][0]) == 2


@ON_POSTGRESQL
@pytest.mark.exhaustive
def test_other_connections_of_the_lost_host_are_not_used(behind_proxy: dict[str, str], proxy: TcpProxy) -> None:
    with app_factory.application(behind_proxy | {"DATABASE_STATEMENT_TIMEOUT": "1"}):
        with db.engine.connect() as one, db.engine.connect() as other:
            one.execute(sa.text("SELECT 1"))
            other.execute(sa.text("SELECT 1"))
        with proxy.host_gone():
            pass
        with pytest.raises(DatabaseUnavailable):
            db.session.execute(sa.text("SELECT 1"))

        began = time.monotonic()
        db.session.rollback()
        found = value_of(lambda: db.session.scalar(sa.text("SELECT 2")))
        took = time.monotonic() - began
        db.session.remove()
        assert found == 2
        assert took < 1


@pytest.mark.both_databases
def test_full_pool_is_503_with_retry_after_and_no_report(
    app: Flask, make_app: Callable[..., Flask], susan: User
) -> None:
    full = make_app(SQLALCHEMY_ENGINE_OPTIONS=small_pool(app), TESTING=False)
    for path in ("/read", "/api/read"):
        full.add_url_rule(path, path, lambda: str(db.session.scalar(sa.select(User.id))))
    with db.engine.connect():
        responses = [full.test_client().get(path) for path in ("/read", "/api/read")]

    assert [response.status_code for response in responses] == [503, 503]
    assert all(int(response.headers["Retry-After"]) > 0 for response in responses)
    assert responses[1].content_type == "application/problem+json"
    assert db.session.scalar(sa.select(sa.func.count(ErrorReport.id))) == 0


@pytest.mark.both_databases
def test_executor_and_session_share_one_pool(app: Flask, make_app: Callable[..., Flask]) -> None:
    small = make_app(SQLALCHEMY_ENGINE_OPTIONS=small_pool(app))
    with db.engine.connect(), pytest.raises(DatabaseUnavailable):
        small.extensions["celery"].executor.execute(sa.text("SELECT 1"))


@pytest.mark.both_databases
def test_launch_needs_one_connection(app: Flask, make_app: Callable[..., Flask]) -> None:
    make_app(SQLALCHEMY_ENGINE_OPTIONS=small_pool(app))

    task_id = start(tasks.noop.s())

    assert states_of(task_id) == ["PENDING"]
    assert db.session.scalar(sa.text("SELECT published_at FROM task")) is not None


@ON_POSTGRESQL
@pytest.mark.exhaustive
def test_batch_has_the_time_limit_of_one_statement(environment: dict[str, str]) -> None:
    # Sending the second row takes until the server has slept for the first one. Each of both waits is within the limit.
    rows = [(1.8, ""), (0.0, "x" * 40_000_000), (1.8, ""), (1.8, "")]
    limited = app_factory.application(environment | {"DATABASE_STATEMENT_TIMEOUT": "2"})  # a response may take 4 s
    with limited, pytest.raises(DatabaseUnavailable):
        db.session.execute(
            sa.text("SELECT pg_sleep(:seconds), length(:data)"),
            [{"seconds": seconds, "data": data} for seconds, data in rows],
        )


@ON_POSTGRESQL
def test_error_in_batch_keeps_its_type(app: Flask) -> None:
    with pytest.raises(IntegrityError):
        db.session.execute(sa.text("INSERT INTO alembic_version VALUES (:name)"), [{"name": "same"}] * 2)

    db.session.rollback()
    assert db.session.scalar(sa.text("SELECT 1")) == 1


@ON_POSTGRESQL
def test_soft_time_limit_ends_statement(executor: AutocommitExecutor) -> None:
    def reach_limit(*_: object) -> NoReturn:
        raise SoftTimeLimitExceeded

    previous = signal.signal(signal.SIGUSR1, reach_limit)  # as a worker's process does
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGUSR1)).start()
    try:
        outcome = value_of(lambda: executor.execute(sa.text("SELECT pg_sleep(8)")))
    finally:
        signal.signal(signal.SIGUSR1, previous)

    assert isinstance(outcome, SoftTimeLimitExceeded)
    assert value_of(lambda: executor.execute(sa.text("SELECT 2"))[0][0]) == 2


@ON_POSTGRESQL
def test_forked_process_leaves_connections_to_its_parent(app: Flask) -> None:
    backend = sa.text("SELECT pg_backend_pid()")
    with db.engine.connect() as connection:  # is in the pool at the fork, that of the session in use
        pooled = connection.scalar(backend)
        db.session.execute(sa.text("CREATE TEMPORARY TABLE mine (id int)"))
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            with contextlib.suppress(DatabaseUnavailable):
                db.session.execute(backend)
            db.session.rollback()
            own = {pooled, db.session.scalar(backend)}
            db.session.remove()
            db.engine.dispose()
            os._exit(len(own) - 2)
        os._exit(1)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert value_of(lambda: db.session.scalar(sa.text("SELECT count(*) FROM mine"))) == 0  # its transaction is open
    with db.engine.connect() as connection:
        assert connection.scalar(backend) == pooled


@ON_POSTGRESQL
@pytest.mark.exhaustive
def test_web_and_worker_go_on_after_database_has_moved(
    app: Flask,
    behind_proxy: dict[str, str],
    proxy: TcpProxy,
    release_file: Path,
    runs_file: Path,
    start_web: Callable[[dict[str, str]], int],
    make_worker: Callable[..., Worker],
) -> None:
    url = behind_proxy["DATABASE_URL"]
    make_worker(DATABASE_URL=url)
    port = start_web(behind_proxy)
    running = start(tasks.wait_for_file.s(str(release_file)))
    wait_for(lambda: states_of(running) == ["STARTED"])

    with proxy.host_gone():
        release_file.touch()
        assert not web_answers(port, "/readyz", timeout=LIMIT)
    moved = time.monotonic()
    following = start(tasks.record.s(str(runs_file)))

    wait_for(lambda: web_answers(port, "/readyz", timeout=LIMIT))
    web_after = time.monotonic() - moved
    wait_for(lambda: states_of(running) == states_of(following) == ["SUCCESS"])
    worker_after = time.monotonic() - moved
    assert (web_after < LIMIT, worker_after < LIMIT) == (True, True), (web_after, worker_after)
