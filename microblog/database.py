"""The declarative base, aware UTC times, errors and helpers for both databases; connections.py has the connections."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import sqlalchemy as sa
from alembic.script import ScriptDirectory
from celery.exceptions import SoftTimeLimitExceeded
from flask import Flask
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, Dialect, Engine, ExceptionContext
from sqlalchemy.exc import DataError, DBAPIError, OperationalError, SQLAlchemyError, StatementError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase, InstrumentedAttribute, Session, registry, scoped_session
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from config import ROOT
from microblog.clock import utcnow

logger = logging.getLogger(__name__)

# SQLite: the file cannot be opened, read or written, the disk is full, or others have locked it for too long.
_SQLITE_UNAVAILABLE = frozenset(
    {
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
    }
)
_READ_ONLY = "25006"  # the SQLSTATE code of PostgreSQL for a change on a read-only server
# PostgreSQL: connections, locks, system errors, and a server that is read-only, starts, stops or lacks resources
# (SQLSTATE codes, or how they begin).
_SQLSTATE_UNAVAILABLE = ("08", _READ_ONLY, "40001", "40P01", "53", "55P03", "57", "58")

SQLITE_TIME = "database_time"  # the SQL function behind DatabaseTime, which connections.py defines

OUTAGE_PAUSE = 1.0  # seconds between two attempts to use a database that is unavailable
PURGE_BATCH = 500  # rows that delete_older() deletes in one transaction


class DatabaseUnavailable(OperationalError):
    """The database cannot be reached or used now; the same statement may succeed later.

    Every engine raises it instead of the driver's error, since the drivers use the same type for this and for errors
    such as a missing column (SQLite: OperationalError). A pool raises it if all its connections stay in use.
    """


class LogDatabaseErrors:
    """A context manager that logs a database error instead of raising it; `consequence` says what happens next.

    DatabaseUnavailable is a warning. Any other error, such as a missing column, does not pass by itself: it is logged
    as an error, with its traceback.
    """

    def __init__(self, logger: logging.Logger, consequence: str, *arguments: object) -> None:
        self._logger = logger
        self._consequence = consequence
        self._arguments = arguments

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        if not isinstance(error, SQLAlchemyError):
            return False
        consequence = self._consequence % self._arguments
        if isinstance(error, DatabaseUnavailable):
            self._logger.warning("the database is unavailable (%s); %s", error.orig, consequence)
        else:
            self._logger.error("the database rejects a statement; %s", consequence, exc_info=error)
        return True


class UtcDateTime(sa.types.TypeDecorator[datetime]):
    """An aware datetime in UTC: ``timestamptz`` on PostgreSQL, naive UTC text on SQLite.

    Raises ValueError for a naive datetime, whose time zone is unknown.
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


class DatabaseTime(FunctionElement[datetime]):
    """The time of the database's clock at the statement, plus a number of seconds: the clock that all processes share.

    With SQLite, all processes are on one machine, whose clock it is.
    """

    type = UtcDateTime()
    inherit_cache = True

    def __init__(self, seconds: sa.ColumnElement[float] | float | None = None) -> None:
        if seconds is None:
            seconds = sa.literal_column("0.0")
        elif not isinstance(seconds, sa.ColumnElement):
            seconds = sa.literal(seconds, sa.Float())
        super().__init__(seconds)


@compiles(DatabaseTime, "postgresql")
def _postgresql_time(element: DatabaseTime, compiler: SQLCompiler, **options: Any) -> str:
    return f"(statement_timestamp() + make_interval(secs => {compiler.process(element.clauses, **options)}))"


@compiles(DatabaseTime, "sqlite")
def _sqlite_time(element: DatabaseTime, compiler: SQLCompiler, **options: Any) -> str:
    return f"{SQLITE_TIME}({compiler.process(element.clauses, **options)})"


def database_time(session: Session | scoped_session[Any]) -> datetime:
    """Return the time of the database's clock. Raises DatabaseUnavailable."""
    return cast(datetime, session.scalar(sa.select(DatabaseTime())))


class Base(DeclarativeBase):
    """The base of every model. All constraints are named, so that migrations can drop them."""

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


@sa.event.listens_for(Engine, "handle_error", retval=True)
def _raise_unavailable(context: ExceptionContext) -> BaseException | None:
    if isinstance(context.original_exception, SoftTimeLimitExceeded):  # raised by a signal during a statement
        # What remains of the response would be taken for that of the next statement.
        context.is_disconnect, context.invalidate_pool_on_disconnect = True, False
        return cast(BaseException, context.original_exception)
    error = context.sqlalchemy_exception
    if getattr(context.original_exception, "sqlstate", None) == _READ_ONLY:
        # After a failover, a connection may still be to the server that was the primary: connect again.
        context.is_disconnect = True
    if isinstance(error, DBAPIError) and (context.is_disconnect or _is_unavailable(error)):
        return DatabaseUnavailable(
            error.statement,
            error.params,
            context.original_exception,
            hide_parameters=error.hide_parameters,
            connection_invalidated=context.is_disconnect,
            ismulti=error.ismulti,
        )
    return None


def _is_unavailable(error: DBAPIError) -> bool:
    if isinstance(error.orig, sqlite3.Error):
        code = getattr(error.orig, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
        return code & 0xFF in _SQLITE_UNAVAILABLE  # the other bits of an extended code only add detail
    state: str | None = getattr(error.orig, "sqlstate", None)
    if state is None:  # the error does not come from the server
        return isinstance(error, OperationalError)
    return state.startswith(_SQLSTATE_UNAVAILABLE)


def check_schema(app: Flask) -> None:
    """Compare the revision of the database with the migrations of this release, when a program starts.

    Raises SystemExit with a sentence if the database is older. A newer one is only logged: during a deployment this
    release runs beside the next one. So is a database that is unavailable.
    """
    scripts = ScriptDirectory(str(ROOT / "migrations"))
    with app.app_context():
        engine: Engine = app.extensions["sqlalchemy"].engine
    try:
        with engine.connect() as connection:
            exists = sa.inspect(connection).has_table("alembic_version")
            found = set(connection.scalars(sa.text("SELECT version_num FROM alembic_version")) if exists else ())
        engine.dispose()  # beat uses no other connection, and a worker is about to fork
    except DatabaseUnavailable as error:
        logger.warning("the database is unavailable (%s); its schema is not checked", error.orig)
        return
    known = {script.revision for script in scripts.walk_revisions()}
    if found - known:
        logger.warning("the schema of the database is newer than this release: it has %s", ", ".join(found - known))
    elif found != set(scripts.get_heads()):
        raise SystemExit(
            f"The schema of the database is older than this release: it has {', '.join(found) or 'no revision'}, and "
            f"{', '.join(scripts.get_heads())} is needed. Run `flask db upgrade`."
        )


def lock_against_fork() -> threading.Lock:
    """Return a new lock that os.fork() waits for.

    A thread of a process that forks holds it while it uses a connection: a child that inherited a held lock of a
    library would wait for it for ever.
    """
    lock = threading.Lock()
    os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)
    return lock


#: Errors of sqlite3, which SQLAlchemy does not wrap, for a value that it cannot store.
VALUE_ERRORS = (ValueError, TypeError, OverflowError)


def is_value_error(error: Exception) -> bool:
    """Return whether a statement failed because of a value in it: it would fail again, however often it is repeated."""
    # Other errors than those of the database come from the conversion of a value, and SQLAlchemy wraps them.
    return isinstance(error, (DataError, *VALUE_ERRORS)) or (
        isinstance(error, StatementError) and not isinstance(error, DBAPIError)
    )


# Statements that need what every write needs, and change nothing that anybody reads.
_WRITES = {
    "sqlite": "PRAGMA user_version = 1",  # writes a page, so that it finds a full disk, too
    "postgresql": "UPDATE task SET state = state WHERE false",  # locks no row
}


class AutocommitExecutor:
    """Executor of single statements, each in its own transaction, with a connection from the pool of `engine`.

    Autocommit mode needs one round trip for a statement instead of three. The statements are independent of any
    session, so that a state is stored whatever the task does with its own transaction.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")

    def execute(self, statement: sa.Executable, **parameters: Any) -> list[sa.Row[Any]]:
        """Run `statement` and return its rows, or [] if it returns none. Raises DatabaseUnavailable."""
        try:
            return self._execute(statement, parameters)
        except DatabaseUnavailable as error:
            if not error.connection_invalidated:
                raise
            # The connection was lost, perhaps earlier. Repeating is safe even if the statement was committed: each one
            # is a compare-and-set, of which a second run changes nothing or is refused and left to reconcile.
            return self._execute(statement, parameters)

    def check_writable(self) -> None:
        """Raise DatabaseUnavailable, with the reason, if the database cannot be reached, is read-only, locked or full.

        On PostgreSQL, read-only is a standby or default_transaction_read_only; a full disk is not found.
        """
        self.execute(sa.text(_WRITES[self._engine.dialect.name]))

    def _execute(self, statement: sa.Executable, parameters: dict[str, Any]) -> list[sa.Row[Any]]:
        with self._engine.connect() as connection:
            result = connection.execute(statement, parameters)
            return list(result) if result.returns_rows else []


def dialect_insert(bind: Engine | Connection, table: Any) -> Any:
    """Return an INSERT into `table` with ``on_conflict_do_nothing()`` and ``on_conflict_do_update()``."""
    return (sqlite if bind.dialect.name == "sqlite" else postgresql).insert(table)


def run_in_batches(session: scoped_session[Any], change: Callable[[], int]) -> Iterator[int]:
    """Call `change`, which changes a limited number of rows, until it returns 0. Commit and yield each number of rows.

    Each call is a separate transaction, so that other transactions do not wait long for a lock.
    """
    while changed := change():
        session.commit()
        yield changed
    session.rollback()


def count_changed(session: scoped_session[Any], statement: sa.Update | sa.Delete) -> int:
    """Run `statement` in the session's transaction. Return the number of rows that it changed or deleted."""
    return cast("sa.CursorResult[Any]", session.execute(statement)).rowcount


def deleted_batches(session: scoped_session[Any], statement: sa.Delete) -> Iterator[int]:
    """Run `statement`, which deletes a limited number of rows, as run_in_batches() does."""
    return run_in_batches(session, lambda: count_changed(session, statement))


def delete_in_batches(session: scoped_session[Any], statement: sa.Delete) -> int:
    """Run `statement`, which deletes a limited number of rows, until none is left. Return the number deleted."""
    return sum(deleted_batches(session, statement))


def delete_older(session: scoped_session[Any], timestamp: InstrumentedAttribute[datetime], seconds: float) -> None:
    """Delete the rows whose `timestamp` is more than `seconds` ago, in batches."""
    model = timestamp.class_
    old = sa.select(model.id).where(timestamp < utcnow() - timedelta(seconds=seconds)).limit(PURGE_BATCH)
    delete_in_batches(session, sa.delete(model).where(model.id.in_(old)))
