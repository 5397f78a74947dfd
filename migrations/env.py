"""Run the migrations with the application's engine and logging."""

from __future__ import annotations

import re
from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from flask import current_app

from microblog.database import UtcDateTime
from microblog.taskqueue.models import CleanJSON, CleanText

RENDERED = {UtcDateTime: "sa.DateTime(timezone=True)", CleanText: "sa.Text()", CleanJSON: "sa.JSON()"}

database = current_app.extensions["migrate"].db


def render_item(kind: str, item: Any, autogen_context: AutogenContext) -> str | Literal[False]:
    """Render our types as those of SQLAlchemy, so that migrations do not depend on the application's classes."""
    if kind == "type" and type(item) in RENDERED:
        return RENDERED[type(item)]
    return False


def include_name(name: str | None, kind: str, parents: Any) -> bool:
    """Exclude the tables of the search index, which exist only on SQLite."""
    return kind != "table" or name is None or not re.fullmatch("post_fts(_[a-z]+)?", name)


def include_object(item: Any, name: str | None, kind: str, reflected: bool, compare_to: Any) -> bool:
    """Exclude indexes that exist only on PostgreSQL, unless it is the database."""
    return kind != "index" or not item.dialect_options["postgresql"]["using"] or _is_postgresql()


def _is_postgresql() -> bool:
    return bool(context.get_context().dialect.name == "postgresql")


def run_migrations(**options: Any) -> None:
    """Run the migrations in one transaction."""
    context.configure(
        target_metadata=database.metadata,
        render_item=render_item,
        include_name=include_name,
        include_object=include_object,
        **options,
        **current_app.extensions["migrate"].configure_args,
    )
    with context.begin_transaction():
        if _is_postgresql():
            context.execute("SET LOCAL statement_timeout = 0")  # a migration may take any time
            # Programs that start at the same time must not migrate concurrently.
            context.execute("SELECT pg_advisory_xact_lock(20261121)")
        context.run_migrations()


if context.is_offline_mode():
    run_migrations(url=database.engine.url, literal_binds=True)
else:
    with database.engine.connect() as connection:
        if connection.dialect.name == "postgresql":
            connection.connection.driver_connection.response_timeout = None
        run_migrations(connection=connection)
