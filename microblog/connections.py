"""Connections to either database, and their pool. Each process has its own, and each statement a time limit."""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

import psycopg
import sqlalchemy as sa
from sqlalchemy.engine import Dialect, Engine
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection, QueuePool

from microblog.clock import utcnow
from microblog.database import SQLITE_TIME, DatabaseUnavailable

logging.getLogger(f"{__name__}.ConnectionPool").setLevel(logging.WARNING)  # as SQLAlchemy's own pools

T = TypeVar("T")

SHORTEST_PAUSE, LONGEST_PAUSE = 0.001, 0.05  # seconds between two attempts to use a SQLite database that is locked
# Not SQLITE_BUSY_SNAPSHOT: others have changed what the transaction has read, and it must begin again.
_LOCKED = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_BUSY_RECOVERY)


class ConnectionPool(QueuePool):
    """A pool of connections to either database."""

    def connect(self) -> PoolProxiedConnection:
        """Return a connection. Raises DatabaseUnavailable if all stay in use for `pool_timeout` seconds."""
        try:
            return super().connect()
        except PoolTimeoutError as error:
            raise DatabaseUnavailable(None, None, error) from error


class PostgresConnection(psycopg.Connection[Any]):
    """A connection that is closed if the server does not respond to a statement within `response_timeout` seconds.

    The server itself ends a statement earlier (statement_timeout), unless it is frozen, or gone behind a proxy that
    still accepts data. After a fork the connection is the parent's: for the child it is closed, and stays untouched.
    """

    response_timeout: float | None = None

    def __init__(self, *arguments: Any, **parameters: Any) -> None:
        self.process = os.getpid()
        super().__init__(*arguments, **parameters)
        self.cursor_factory = _PostgresCursor
        self.deadline: float | None = None  # of a batch, by time.monotonic()

    @property
    def closed(self) -> bool:
        """Return whether this process can no longer use the connection."""
        return self.process != os.getpid() or super().closed

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """As psycopg's, with `response_timeout` as the default of `timeout`. Raises psycopg.OperationalError."""
        if self.process != os.getpid():
            raise psycopg.OperationalError("the connection belongs to another process")
        if timeout is None:
            timeout = self.response_timeout if self.deadline is None else max(0.0, self.deadline - time.monotonic())
        try:
            return super().wait(gen, interval, timeout)
        except psycopg.OperationalError as error:
            active = self.info.transaction_status == psycopg.pq.TransactionStatus.ACTIVE
            if active and error.sqlstate is None:  # there was no response
                self.close()
            raise

    def rollback(self) -> None:
        """As psycopg's, but without an error if the connection is lost: the server rolls back its transaction."""
        try:
            super().rollback()
        except psycopg.OperationalError:
            self.close()


class _PostgresCursor(psycopg.Cursor[Any]):
    def executemany(self, query: Any, params_seq: Iterable[Any], *, returning: bool = False) -> None:
        """As psycopg's, which waits several times, within the limit of one statement."""
        connection: Any = self.connection
        if connection.response_timeout is not None:
            connection.deadline = time.monotonic() + connection.response_timeout
        try:
            super().executemany(query, params_seq, returning=returning)
        finally:
            connection.deadline = None


class SqliteConnection(sqlite3.Connection):
    """A connection that waits at most `timeout` seconds while another process has locked the database.

    SQLite itself would wait in C, where it stops all greenlets of a web process.
    """

    def __init__(self, database: str, timeout: float = 5.0, **parameters: Any) -> None:
        super().__init__(database, timeout=0, **parameters)
        self.process = os.getpid()
        self.lock_timeout = timeout

    def cursor(self, factory: Any = None) -> Any:
        """Return a cursor whose statements wait for a lock."""
        return super().cursor(factory or _SqliteCursor)

    def commit(self) -> None:
        """As sqlite3's, which a reader can delay if the file system has no WAL."""
        self.wait_for_lock(super().commit)

    def wait_for_lock(self, act: Callable[[], T]) -> T:
        """Call `act`, again and again while the database is locked. Raises sqlite3.OperationalError."""
        deadline, pause = time.monotonic() + self.lock_timeout, SHORTEST_PAUSE
        while True:
            try:
                return act()
            except sqlite3.OperationalError as error:
                if getattr(error, "sqlite_errorcode", None) not in _LOCKED or time.monotonic() >= deadline:
                    raise
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)


class _SqliteCursor(sqlite3.Cursor):
    connection: SqliteConnection

    def execute(self, sql: str, parameters: Any = ()) -> Any:
        return self.connection.wait_for_lock(partial(super().execute, sql, parameters))

    def executemany(self, sql: str, parameters: Any) -> Any:
        # Within a transaction only the first row can find the database locked, so that none is inserted twice.
        if self.connection.isolation_level is None:
            return super().executemany(sql, parameters)
        return self.connection.wait_for_lock(partial(super().executemany, sql, parameters))


@sa.event.listens_for(Engine, "do_connect")
def _connect(
    dialect: Dialect, record: ConnectionPoolEntry, arguments: list[Any], parameters: dict[str, Any]
) -> PostgresConnection | SqliteConnection:
    if dialect.name == "sqlite":
        return sqlite3.connect(*arguments, factory=SqliteConnection, **parameters)
    response_timeout = parameters.pop("response_timeout", None)
    connection = PostgresConnection.connect(*arguments, **parameters)
    connection.response_timeout = response_timeout
    # The variable PGTZ takes precedence over `options`, which a pooler does not know. PgBouncer keeps the time zone of
    # each client, unlike other settings.
    if connection.info.parameter_status("TimeZone") != "UTC":
        connection.autocommit = True
        connection.execute("SET TIME ZONE 'UTC'")
        connection.autocommit = False
    return connection


@sa.event.listens_for(Engine, "checkout")
def _discard_closed(connection: Any, record: ConnectionPoolEntry, proxy: PoolProxiedConnection) -> None:
    """Replace a pooled connection of the parent process, or one that the server has closed, as it does at a restart.

    Reading what has arrived needs no round trip, unlike `pool_pre_ping`.
    """
    if connection.process != os.getpid():
        raise DisconnectionError("the connection belongs to another process")
    if isinstance(connection, PostgresConnection):
        try:
            for _ in range(2):  # the server's last message, and the end after it
                connection.pgconn.consume_input()
        except psycopg.OperationalError as error:
            raise DisconnectionError(str(error)) from error


@sa.event.listens_for(Engine, "connect")
def _open_sqlite(connection: Any, record: Any) -> None:
    """Configure a SQLite connection: WAL, so that readers do not wait for the writer, and foreign keys."""
    if isinstance(connection, sqlite3.Connection):
        # SQLite's own functions know milliseconds only. A deterministic function is called once in a statement.
        connection.create_function(SQLITE_TIME, 1, _time_for_sqlite, deterministic=True)
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = NORMAL")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()


def _time_for_sqlite(seconds: float) -> str:
    return (utcnow() + timedelta(seconds=seconds)).strftime("%Y-%m-%d %H:%M:%S.%f")
