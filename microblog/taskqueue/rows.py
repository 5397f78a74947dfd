"""The Task table one statement at a time, for code that has no session: the worker's hooks and the mirror."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from microblog.taskqueue.models import Task

table: sa.Table = Task.__table__  # type: ignore[assignment]

#: Raised by Rows.execute() when the database is away.
DatabaseAway = DBAPIError


class Rows:
    """Runs single statements, each its own transaction, on `engine`.

    In autocommit mode, since a statement alone then needs one round trip instead of three, and apart from any
    session, so that a state is written whatever the task does with its own transaction.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._pool = engine
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")

    def execute(self, statement: sa.Executable, **parameters: Any) -> list[sa.Row[Any]]:
        """The rows that `statement` returns (none if it returns no rows). Raises DatabaseAway."""
        with self._engine.connect() as connection:
            result = connection.execute(statement, parameters)
            return list(result) if result.returns_rows else []

    def forget_connections(self) -> None:
        """After a fork: leave the parent's connections to the parent."""
        self._pool.dispose(close=False)
