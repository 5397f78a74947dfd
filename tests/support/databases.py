"""Test databases: one of each kind per process of pytest, emptied before each test that uses it."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import psycopg
import sqlalchemy as sa

from microblog.extensions import db
from tests.support.servers import Postgres

LOCK_TIMEOUT = 30  # seconds to wait for a connection that still holds a lock

_TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'alembic_version'"
# Truncate the tables and delete their statistics, so that queries get the same plans as in a new database.
_EMPTY = """
    SET lock_timeout = '{timeout}s';
    DO $$ DECLARE names text; BEGIN
        SELECT string_agg(quote_ident(relname), ', ') INTO names FROM pg_class
        WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relname <> 'alembic_version'
        AND pg_relation_size(oid) > 0;
        IF names IS NOT NULL THEN EXECUTE 'TRUNCATE ' || names || ' CASCADE'; END IF;
    END $$;
    DELETE FROM pg_statistic USING pg_class WHERE starelid = oid AND relnamespace = 'public'::regnamespace;
"""
_RESTART_SEQUENCES = """
    SELECT setval(oid::regclass, 1, false) FROM pg_class
    WHERE relkind = 'S' AND relnamespace = 'public'::regnamespace
"""
_SCHEMA = """
    SELECT md5(string_agg(concat_ws(' ', attrelid, attname, atttypid, attnotnull), ',' ORDER BY attrelid, attnum))
    FROM pg_attribute JOIN pg_class ON attrelid = pg_class.oid
    WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'i')
"""


class Database(Protocol):
    """A migrated database that can be emptied."""

    url: str

    def empty(self) -> None:
        """Restore the state after the migrations, whatever a test changed in rows or tables."""


class SqliteDatabase:
    """A copy of the SQLite file `template`, in `folder`."""

    def __init__(self, template: Path, folder: Path) -> None:
        self._template = template
        self._path = folder / "microblog.db"
        self.url = f"sqlite:///{self._path}"

    def empty(self) -> None:
        """Copy the template over the file in one transaction, since other processes may have it open."""
        with (
            contextlib.closing(sqlite3.connect(self._template)) as template,
            contextlib.closing(sqlite3.connect(self._path, timeout=LOCK_TIMEOUT)) as database,
        ):
            database.execute("PRAGMA synchronous = OFF")
            template.backup(database)


class PostgresDatabase:
    """A database of `server` called `name`, a copy of the database `template`."""

    def __init__(self, server: Postgres, template: str, name: str) -> None:
        self._server = server
        self._template = template
        self._name = name
        self._schema = ""
        self._statements = ""
        self._connection: psycopg.Connection[tuple[str]] | None = None  # reused: connecting takes longer than emptying
        self.url = server.url(name)

    def empty(self) -> None:
        """Restore the rows and restart the sequences, or copy the template again if a table was changed."""
        if not self._try_to_empty():
            self._copy()

    def _try_to_empty(self) -> bool:
        """Return False if the database does not exist yet, rows stay locked or its tables differ from the template."""
        if self._connection is None:
            return False
        try:
            if self._schema_hash() != self._schema:
                return False
            self._connection.execute(self._statements.encode())
        except psycopg.OperationalError:
            return False
        return True

    def _copy(self) -> None:
        self._server.drop(self._name)
        self._server.create(self._name, self._template)
        self._connection = psycopg.connect(self.url, autocommit=True)
        self._schema = self._schema_hash()
        self._connection.execute("CREATE SCHEMA template")  # holds the rows that the migrations insert
        statements = [_EMPTY.format(timeout=LOCK_TIMEOUT), f"{_RESTART_SEQUENCES};"]
        for (name,) in self._connection.execute(_TABLES).fetchall():
            if self._connection.execute(f'SELECT 1 FROM "{name}" LIMIT 1'.encode()).fetchone():
                self._connection.execute(f'CREATE TABLE template."{name}" AS TABLE "{name}"'.encode())
                statements.append(f'INSERT INTO "{name}" SELECT * FROM template."{name}";')
        self._statements = "".join(statements)

    def _schema_hash(self) -> str:
        assert self._connection is not None
        row = self._connection.execute(_SCHEMA).fetchone()
        assert row is not None
        return row[0] or ""


class Statement(NamedTuple):
    """An executed SQL statement."""

    sql: str
    parameters: Any

    def plan(self, *, analyze: bool = False) -> str:
        """Return the plan of the statement, with the rows that each step reads if PostgreSQL is to `analyze` it."""
        connection = db.session.connection()
        on_sqlite = connection.dialect.name == "sqlite"
        explain = "EXPLAIN QUERY PLAN" if on_sqlite else "EXPLAIN ANALYZE" if analyze else "EXPLAIN"
        return "\n".join(map(str, connection.exec_driver_sql(f"{explain} {self.sql}", self.parameters)))


@contextlib.contextmanager
def recorded_statements() -> Iterator[list[Statement]]:
    """Yield the list of the SQL statements that this process executes during the block."""
    statements: list[Statement] = []

    def record(connection: Any, cursor: Any, sql: str, parameters: Any, *rest: Any) -> None:
        statements.append(Statement(sql, parameters))

    sa.event.listen(sa.Engine, "before_cursor_execute", record)
    try:
        yield statements
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", record)
