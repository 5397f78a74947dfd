"""The declarative base, aware UTC times, SQLite settings and helpers for both databases."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Dialect, Engine
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import DeclarativeBase, registry, scoped_session

# What SQLite says of a file that it cannot open, or that others hold for too long.
_SQLITE_AWAY = frozenset({sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
# And PostgreSQL: of connections, of a server that goes or comes or is full, and of locks (SQLSTATE, or how it begins).
_SQLSTATE_AWAY = ("08", "40001", "40P01", "53300", "55P03", "57P")


class UtcDateTime(sa.types.TypeDecorator[datetime]):
    """An aware datetime in UTC: ``timestamptz`` on PostgreSQL, naive UTC text on SQLite.

    Refuses a naive datetime with ValueError, since nobody can know which zone it means.
    """

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"a naive datetime cannot be stored: {value!r}")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """The base of every model; named constraints, so that migrations can drop them."""

    registry = registry(
        metadata=sa.MetaData(
            naming_convention={
                "ix": "ix_%(column_0_label)s",
                "uq": "uq_%(table_name)s_%(column_0_name)s",
                "ck": "ck_%(table_name)s_%(constraint_name)s",
                "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
                "pk": "pk_%(table_name)s",
            }
        ),
        type_annotation_map={datetime: UtcDateTime(), dict[str, Any]: sa.JSON()},
    )


@sa.event.listens_for(Engine, "connect")
def _open_sqlite(connection: Any, record: Any) -> None:
    """Readers that do not wait for the writer (WAL), writers that wait for each other, foreign keys that hold."""
    if isinstance(connection, sqlite3.Connection):
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = NORMAL")
        cursor.execute("PRAGMA busy_timeout = 10000")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()


def is_away(error: DBAPIError) -> bool:
    """Return whether `error` says that the database cannot be reached or used now: the same may work in a while.

    The drivers have the same types for that and for what is our fault (SQLite for a column that does not exist).
    """
    if error.connection_invalidated:
        return True
    if not isinstance(error, OperationalError):
        return False
    if isinstance(error.orig, sqlite3.Error):
        code = getattr(error.orig, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
        return code & 0xFF in _SQLITE_AWAY  # the rest of an extended code only tells more
    state: str | None = getattr(error.orig, "sqlstate", None)
    return state is None or state.startswith(_SQLSTATE_AWAY)  # None: it is not the server who says so


def dialect_insert(engine: Engine, table: Any) -> Any:
    """An INSERT into `table` that knows ``on_conflict_do_nothing()`` and ``on_conflict_do_update()``."""
    return (sqlite if engine.dialect.name == "sqlite" else postgresql).insert(table)


def delete_in_batches(session: scoped_session[Any], statement: sa.Delete) -> int:
    """Run `statement`, which deletes a limited number of rows, until it finds none; returns how many it deleted.

    Each run is a transaction of its own, so that nobody waits long for a lock.
    """
    deleted = 0
    while found := cast("sa.CursorResult[Any]", session.execute(statement)).rowcount:
        session.commit()
        deleted += found
    session.rollback()
    return deleted
