"""an id is given once, also on SQLite

Revision ID: 0015
Revises: 0014

PostgreSQL has always done so. SQLite gives the id of the newest row again once that is deleted, unless the table says
AUTOINCREMENT; then it must be made anew.
"""
import re

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

TABLES = ("user", "post", "message", "notification", "email_change", "api_token", "error_report")


def upgrade():
    make_anew(with_autoincrement)


def downgrade():
    make_anew(without_autoincrement)


def with_autoincrement(table, sql):
    """The statement that makes `table`, with ids that are given once."""
    columns = re.sub(rf",\s*CONSTRAINT pk_{table} PRIMARY KEY \(id\)", "", sql)
    return re.sub(r"\(\s*id INTEGER NOT NULL", r"\g<0> PRIMARY KEY AUTOINCREMENT", columns, count=1)


def without_autoincrement(table, sql):
    """The statement that made `table` before."""
    columns = sql.replace(" PRIMARY KEY AUTOINCREMENT", "")
    return f"{columns.rstrip().removesuffix(')')}, \n\tCONSTRAINT pk_{table} PRIMARY KEY (id)\n)"


def make_anew(change):
    """Make the tables of SQLite anew, each by its statement as `change` has it; nothing else becomes different.

    A foreign key that holds would delete all that refers to a row of a table that is dropped. It can be let go outside
    a transaction only: so this has one of its own, which is all of it or nothing, and may be run again.
    """
    if op.get_bind().dialect.name != "sqlite":
        return
    with op.get_context().autocommit_block():
        run("PRAGMA foreign_keys = OFF")
        run("BEGIN IMMEDIATE")
        try:
            for table in TABLES:
                copy(table, change)
            if broken := run("PRAGMA foreign_key_check").all():
                raise RuntimeError(f"rows that refer to none: {broken}")
            run("COMMIT")
        except BaseException:
            run("ROLLBACK")
            raise
        finally:
            run("PRAGMA foreign_keys = ON")


def copy(table, change):
    """Put a table that is made by another statement in the place of `table`, with its rows, indexes and triggers."""
    of_table = f"FROM sqlite_master WHERE tbl_name = '{table}' AND sql IS NOT NULL"
    [(old,)] = run(f"SELECT sql {of_table} AND type = 'table'").all()
    new = change(table, old)
    if ("AUTOINCREMENT" in old) == ("AUTOINCREMENT" in new):  # by a run that ended before it was noted
        return
    attached = run(f"SELECT sql {of_table} AND type <> 'table' ORDER BY type").all()
    run(re.sub(r'^CREATE TABLE "?\w+"?', f"CREATE TABLE new_{table}", new))
    run(f'INSERT INTO new_{table} SELECT * FROM "{table}"')
    run(f'DROP TABLE "{table}"')
    run(f'ALTER TABLE new_{table} RENAME TO "{table}"')
    for (sql,) in attached:
        run(sql)


def run(statement):
    return op.get_bind().exec_driver_sql(statement)
