"""Migrations: a database that is in use comes through them whole."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import flask_migrate
import pytest
import sqlalchemy as sa
from flask import Flask

from microblog.extensions import db
from tests.support import app_factory
from tests.support.programs import ROOT
from tests.support.servers import Postgres

pytestmark = pytest.mark.both_databases

MIGRATIONS = str(ROOT / "migrations")
FIRST = "0001"
BEFORE_IDS = "0014"  # the last that has tables of SQLite that give an id again


@pytest.fixture
def old_database(
    database: str, base_environment: dict[str, str], tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[None]:
    """An app context; its database has the first tables, and a user who wrote a post."""
    url = f"sqlite:///{tmp_path / 'old.db'}"
    if database == "postgresql":
        server: Postgres = request.getfixturevalue("postgres_server")
        url = server.create(f"old_{uuid.uuid4().hex}")
    with app_factory.application(base_environment | {"DATABASE_URL": url, "INSTANCE_PATH": str(tmp_path)}):
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


def fill_every_table() -> None:
    """One row more in each, which refers to the users 1 and 2, or to the first row of another table."""
    execute("""INSERT INTO "user" (id, username, email, password_hash, created_at)
        VALUES (2, 'ben', 'ben@example.com', 'hash', '2026-01-01 12:00:00')""")
    for table in reflected().sorted_tables:
        numbered = table.c.get("id") is not None and isinstance(table.c.id.type, sa.Integer)
        values = {one.name: value_for(one) for one in table.columns if not (numbered and one.name == "id")}
        users = [key.parent.name for key in table.foreign_keys if key.column.table.name == "user"]
        values |= {name: number for number, name in enumerate(sorted(users), 1)}
        with db.engine.begin() as connection:
            connection.execute(table.insert().values(values))


def value_for(column: sa.Column[object]) -> object:
    values = {
        str: column.name,
        datetime: datetime(2026, 1, 1, 12),
        int: 1,
        float: 1.5,
        bool: True,
        object: {},
    }  # the last is JSON
    return values[column.type.python_type]


def reflected() -> sa.MetaData:
    """The tables as they are now, but for those of the search's index and of the migrations themselves."""
    metadata = sa.MetaData()
    metadata.reflect(db.engine, only=lambda name, _: not name.startswith(("post_fts", "alembic")))
    return metadata


def contents(columns: dict[str, list[str]]) -> dict[str, list[sa.Row[tuple[object, ...]]]]:
    """All rows: of each table these columns."""
    return {
        name: sorted(execute(f"""SELECT {", ".join(f'"{one}"' for one in names)} FROM "{name}" """).all(), key=repr)
        for name, names in columns.items()
    }


def attached() -> set[tuple[str, ...]]:
    """All indexes and foreign keys, and the names of all triggers."""
    schema = execute("SELECT type, name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL").all()
    triggers = execute("SELECT type, name FROM sqlite_master WHERE type = 'trigger'").all()
    keys = execute("""SELECT m.name, k."from", k."table", k."to", k.on_delete
        FROM sqlite_master m, pragma_foreign_key_list(m.name) k""").all()
    return {tuple(map(str, row)) for row in (*schema, *triggers, *keys)}


def shapes() -> dict[str, tuple[object, ...]]:
    """The columns of each table of SQLite, and whether it gives an id once."""
    return {
        str(name): ("AUTOINCREMENT" in str(sql), *sorted(map(tuple, columns_of(str(name)))))
        for name, sql in execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'").all()
        if str(name) in db.metadata.tables
    }


def columns_of(table: str) -> list[sa.Row[tuple[object, ...]]]:
    columns = execute(f"""SELECT name, type, "notnull", pk FROM pragma_table_info('{table}')""").all()
    return [row for row in columns if row.name != "terms"]  # its type is the dialect's own


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


@pytest.mark.parametrize("database", ["sqlite"])
@pytest.mark.filterwarnings("ignore:.*expression-based index")
@pytest.mark.usefixtures("old_database")
def test_tables_that_are_made_anew_lose_nothing_and_give_no_id_again() -> None:
    flask_migrate.upgrade(directory=MIGRATIONS, revision=BEFORE_IDS)
    fill_every_table()
    columns = {table.name: [column.name for column in table.columns] for table in reflected().tables.values()}
    rows, things = contents(columns), attached()
    assert all(rows.values())

    for _again in range(2):
        flask_migrate.upgrade(directory=MIGRATIONS, revision="heads")

        assert contents(columns) == rows
        assert things <= attached()
        assert execute("PRAGMA foreign_keys").scalar() == 1
        assert execute("SELECT rowid FROM post_fts WHERE post_fts MATCH 'terms'").all() == [(2,)]

        flask_migrate.downgrade(directory=MIGRATIONS, revision=BEFORE_IDS)
        assert (contents(columns), attached()) == (rows, things)

    flask_migrate.upgrade(directory=MIGRATIONS, revision="heads")
    execute("""DELETE FROM "user" WHERE id > 1""")
    assert (
        execute("""INSERT INTO "user" (username, email, password_hash, created_at)
        VALUES ('ben', 'ben@example.com', 'hash', '2026-01-01 12:00:00') RETURNING id""").scalar()
        == 4
    )
    assert execute("SELECT count(*) FROM message").scalar() == 0


@pytest.mark.parametrize("database", ["sqlite"])
def test_they_make_the_columns_and_ids_that_the_models_describe(app: Flask, tmp_path: Path) -> None:
    migrated = shapes()

    engine = sa.create_engine(f"sqlite:///{tmp_path / 'models.db'}")
    with pytest.MonkeyPatch.context() as patch:
        db.metadata.create_all(engine)
        patch.setitem(db.engines, None, engine)
        described = shapes()

    assert migrated == described
    assert sum(bool(once) for once, *_columns in described.values()) >= 7
    engine.dispose()


@pytest.mark.filterwarnings("ignore:.*expression-based index")
def test_they_make_what_the_models_describe(app: Flask) -> None:
    flask_migrate.check(directory=MIGRATIONS)  # exits with 1 if they miss something
