"""The settings of the database engine, made from the variables whose names begin with ``DATABASE_``.

A database that moves or is cut off without a word must not stop a program for more than 15 seconds. The times below,
and the default of ``DATABASE_STATEMENT_TIMEOUT``, add up to less.
"""

from __future__ import annotations

import sqlite3
from typing import Any

from environs import ValidationError
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

RESPONSE_MARGIN = 2.0  # seconds that the server has to report the end of a statement at its timeout
POOL_TIMEOUT = 5.0  # seconds that a thread waits for another to return a connection to a full pool
POSTGRESQL = {
    "connect_timeout": 5,  # seconds, for each address of the server
    # The kernel closes a connection if what was sent is not acknowledged for 10,000 ms. While a statement runs, probes
    # are sent: after 5 s, then every 2 s, up to 3 times.
    "tcp_user_timeout": 10_000,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
}
MINIMUM_SQLITE = (3, 35)  # the first one with RETURNING


def engine_options(url: str, *, pool_size: int, statement_timeout: float, pooler: bool) -> dict[str, Any]:
    """Return the options of the engine for the database at `url`.

    `pool_size` is the number of connections of a process at most, `statement_timeout` is in seconds. Behind a `pooler`,
    a session on the server serves many clients, so that none can have settings or prepared statements of its own.
    """
    options: dict[str, Any] = {
        "hide_parameters": True,  # they are not shown in errors, and so not logged
        "pool_size": pool_size,
        "max_overflow": 0,
        "pool_timeout": POOL_TIMEOUT,
    }
    if url.startswith("sqlite"):
        return options | {"connect_args": {"timeout": statement_timeout}}
    arguments: dict[str, Any] = POSTGRESQL | {"response_timeout": statement_timeout + RESPONSE_MARGIN}
    if pooler:
        arguments["prepare_threshold"] = None
    else:
        # Times are in UTC whatever the server's time zone; where this has no effect, connections.py sets it. JIT
        # compilation is off: it takes a second for a query that reads the fifty rows of a page in a millisecond.
        arguments["options"] = f"-c timezone=utc -c jit=off -c statement_timeout={statement_timeout * 1000:.0f}"
    return options | {"connect_args": arguments}


def with_driver(url: str) -> str:
    """Return `url` with the driver psycopg 3 if it is a PostgreSQL URL, in either of the usual spellings."""
    for scheme in ("postgres://", "postgresql://"):
        if url.startswith(scheme):
            return "postgresql+psycopg://" + url.removeprefix(scheme)
    return url


def valid_database_url(value: str) -> None:
    """Raise ValidationError unless `value` is the URL of a SQLite file or of a PostgreSQL database."""
    try:
        url = make_url(with_driver(value))
    except (ArgumentError, ValueError):
        url = None
    if url is None or url.drivername not in ("sqlite", "postgresql+psycopg"):
        raise ValidationError("Must be a sqlite:/// or postgresql:// URL.")
    if url.drivername == "sqlite" and url.database in (None, "", ":memory:"):
        raise ValidationError("Must name a file: each connection would have a database in memory of its own.")


def sqlite_problem(url: str) -> str | None:
    """Return a sentence if `url` is of SQLite and the installed one is too old, else None."""
    if not url.startswith("sqlite") or sqlite3.sqlite_version_info >= MINIMUM_SQLITE:
        return None
    return (
        f"DATABASE_URL: SQLite {'.'.join(map(str, MINIMUM_SQLITE))} or newer is needed, and Python has "
        f"{sqlite3.sqlite_version}; install a newer one or use PostgreSQL."
    )
