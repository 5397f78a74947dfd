"""which posts were imported, so that the search comes to them after those that were written here

Revision ID: 0016
Revises: 0015

SQLite's index of the search is made anew, in the order in which posts are looked at: see posts/models.py. Those that
were imported before are taken for written here. A release that folds words in another way comes with this one:
`flask search reindex` is due afterwards (docs/operations.md).
"""
import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

OLD, NEW = "{0}.id", "{0}.id - 2147483648 * {0}.imported"  # by which rowid a post is in the index


def upgrade():
    op.add_column("post", sa.Column("imported", sa.Boolean(), server_default=sa.false(), nullable=False))
    if op.get_bind().dialect.name == "postgresql":
        op.create_index("ix_post_imported_id", "post", ["imported", sa.text("id DESC")], postgresql_using="btree")
    else:
        drop_index()
        op.execute("CREATE VIEW post_terms AS SELECT id - 2147483648 * imported AS place, terms FROM post")
        make_index("post_terms", "place", NEW, "terms, imported")


def downgrade():
    if op.get_bind().dialect.name == "postgresql":
        op.drop_index("ix_post_imported_id", table_name="post")
    else:
        drop_index()
        op.execute("DROP VIEW post_terms")
        make_index("post", "id", OLD, "terms")
    op.drop_column("post", "imported")


def drop_index():
    for name in ("insert", "delete", "update"):
        op.execute(f"DROP TRIGGER post_fts_{name}")
    op.execute("DROP TABLE post_fts")


def make_index(content, rowid, place, columns):
    """SQLite's index over the terms in `content`, where a post's `rowid` is its `place`; and what keeps it."""
    options = f"content='{content}', content_rowid='{rowid}', tokenize='ascii', prefix='3 4'"
    op.execute(f"CREATE VIRTUAL TABLE post_fts USING fts5(terms, {options})")
    op.execute("INSERT INTO post_fts(post_fts) VALUES ('rebuild')")
    add = f"INSERT INTO post_fts(rowid, terms) VALUES ({place.format('new')}, new.terms);"
    remove = f"INSERT INTO post_fts(post_fts, rowid, terms) VALUES ('delete', {place.format('old')}, old.terms);"
    op.execute(f"CREATE TRIGGER post_fts_insert AFTER INSERT ON post BEGIN {add} END")
    op.execute(f"CREATE TRIGGER post_fts_delete AFTER DELETE ON post BEGIN {remove} END")
    op.execute(f"CREATE TRIGGER post_fts_update AFTER UPDATE OF {columns} ON post BEGIN {remove} {add} END")
