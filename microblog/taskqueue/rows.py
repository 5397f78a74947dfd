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
    """Runs single statements, each its own transaction, on the database of `engine`.

    In autocommit mode, since a statement alone then needs one round trip instead of three, and apart from any
    session, so that a state is written whatever the task does with its own transaction.
    """

    def __init__(self, engine: sa.Engine, connect_args: dict[str, Any] | None = None) -> None:
        # A pool of its own, whose connections are not tried before each use: that would double the round trips.
        self._engine = sa.create_engine(
            engine.url, isolation_level="AUTOCOMMIT", hide_parameters=True, connect_args=connect_args or {}
        )

    def execute(self, statement: sa.Executable, **parameters: Any) -> list[sa.Row[Any]]:
        """The rows that `statement` returns (none if it returns no rows). Raises DatabaseAway."""
        try:
            return self._execute(statement, parameters)
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
            return self._execute(statement, parameters)  # it was cut since it was last used

    def _execute(self, statement: sa.Executable, parameters: dict[str, Any]) -> list[sa.Row[Any]]:
        with self._engine.connect() as connection:
            result = connection.execute(statement, parameters)
            return list(result) if result.returns_rows else []

    def forget_connections(self) -> None:
        """After a fork: leave the parent's connections to the parent."""
        self._engine.dispose(close=False)
