"""The migrations create the schema that the models describe, and a downgrade removes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import flask_migrate
import pytest
import sqlalchemy as sa
from flask import Flask

from microblog.accounts.models import User
from microblog.extensions import db
from microblog.pagination import PageRequest
from microblog.posts.models import Post
from microblog.search.find import find
from microblog.search.query import Query
from tests.support.programs import ROOT

pytestmark = pytest.mark.both_databases

MIGRATIONS = str(ROOT / "migrations")


def execute(statement: str) -> sa.Result[*tuple[Any, ...]]:
    with db.engine.begin() as connection:
        result = connection.execute(sa.text(statement))
        return result.freeze()() if result.returns_rows else result


def shapes() -> dict[str, tuple[object, ...]]:
    """Return the columns of each table of SQLite, and whether the table uses AUTOINCREMENT."""
    return {
        str(name): ("AUTOINCREMENT" in str(sql), *sorted(map(tuple, columns_of(str(name)))))
        for name, sql in execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'").all()
        if str(name) in db.metadata.tables
    }


def columns_of(table: str) -> list[sa.Row[*tuple[Any, ...]]]:
    columns = execute(f"""SELECT name, type, "notnull", pk FROM pragma_table_info('{table}')""").all()
    return [row for row in columns if row.name != "terms"]  # its type depends on the dialect


@pytest.mark.parametrize("database", ["sqlite"])
def test_migrated_columns_match_models(app: Flask, tmp_path: Path) -> None:
    migrated = shapes()

    engine = sa.create_engine(f"sqlite:///{tmp_path / 'models.db'}")
    with pytest.MonkeyPatch.context() as patch:
        db.metadata.create_all(engine)
        patch.setitem(db.engines, None, engine)
        described = shapes()

    assert migrated == described
    assert sum(bool(autoincrement) for autoincrement, *_columns in described.values()) >= 7
    engine.dispose()


@pytest.mark.filterwarnings("ignore:.*expression-based index")
def test_migrated_schema_matches_models(app: Flask) -> None:
    flask_migrate.check(directory=MIGRATIONS)  # exits with 1 if they differ


def test_downgrade_and_upgrade_round_trip(app: Flask) -> None:
    flask_migrate.downgrade(directory=MIGRATIONS, revision="base")
    tables = sa.inspect(db.engine).get_table_names()

    flask_migrate.upgrade(directory=MIGRATIONS)

    assert tables == ["alembic_version"]
    assert set(sa.inspect(db.engine).get_table_names()) >= set(db.metadata.tables)
    user = User(username="susan", email="susan@example.com", password_hash="")
    db.session.add_all([user, Post(body="Searchable words", author=user)])
    db.session.commit()
    found = find(Query.parse("searchable"), PageRequest(size=10))
    assert [post.body for post in found.page.items] == ["Searchable words"]
