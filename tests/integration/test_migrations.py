"""Migrations: a database that is in use comes through them whole."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import flask_migrate
import pytest
import sqlalchemy as sa
from flask import Flask

from microblog.extensions import db
from tests.support import house
from tests.support.programs import ROOT
from tests.support.services import PostgresServer

MIGRATIONS = str(ROOT / "migrations")
FIRST = "0001"


@pytest.fixture
def old_database(
    database: str, base_environment: dict[str, str], tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[None]:
    """An app context; its database has the first tables, and a user who wrote a post."""
    url = f"sqlite:///{tmp_path / 'old.db'}"
    if database == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres_server")
        url = server.create(f"old_{uuid.uuid4().hex}")
    with house.application(base_environment | {"DATABASE_URL": url, "INSTANCE_PATH": str(tmp_path)}):
        flask_migrate.upgrade(directory=MIGRATIONS, revision=FIRST)
        execute("""INSERT INTO "user" VALUES (1, 'susan', 'susan@example.com', 'hash', '2026-01-01 12:00:00+00:00')""")
        execute("INSERT INTO post VALUES (1, 'Still here', '2026-01-01 12:00:00+00:00', 1)")
        yield


def execute(statement: str) -> sa.Result[tuple[object, ...]]:
    with db.engine.begin() as connection:
        result = connection.execute(sa.text(statement))
        return result.freeze()() if result.returns_rows else result


def indexes() -> set[str]:
    """The names of all indexes; the inspector leaves out those over expressions."""
    query = "SELECT name FROM sqlite_master WHERE type = 'index'"
    if db.engine.dialect.name == "postgresql":
        query = "SELECT indexname FROM pg_indexes WHERE schemaname = 'public'"
    return {str(name) for (name,) in execute(query)}


@pytest.mark.usefixtures("old_database")
def test_a_database_that_is_in_use_keeps_its_rows_and_its_indexes() -> None:
    before = indexes()

    flask_migrate.upgrade(directory=MIGRATIONS, revision="heads")

    assert execute('SELECT username, is_operator FROM "user"').all() == [("susan", False)]
    assert execute("SELECT body FROM post").all() == [("Still here",)]
    assert before <= indexes()


@pytest.mark.usefixtures("old_database")
def test_the_way_back_keeps_them_too() -> None:
    before = indexes()
    flask_migrate.upgrade(directory=MIGRATIONS, revision="heads")

    flask_migrate.downgrade(directory=MIGRATIONS, revision=FIRST)

    assert execute("SELECT body FROM post").all() == [("Still here",)]
    assert indexes() == before


@pytest.mark.filterwarnings("ignore:.*expression-based index")
def test_they_make_what_the_models_describe(app: Flask) -> None:
    flask_migrate.check(directory=MIGRATIONS)  # exits with 1 if they miss something
