"""the words of posts, and the indexes by which they are found

Revision ID: 0011
Revises: 0010

Posts that are there already get their words from the task index_posts, a batch at a time.
"""
import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import TSVECTOR

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

MISSING = sa.text("terms IS NULL")
FTS5 = """
CREATE VIRTUAL TABLE post_fts USING fts5(terms, content='post', content_rowid='id', tokenize='ascii', prefix='3 4')
"""
ADD = "INSERT INTO post_fts(rowid, terms) VALUES (new.id, new.terms);"
REMOVE = "INSERT INTO post_fts(post_fts, rowid, terms) VALUES ('delete', old.id, old.terms);"
TRIGGERS = {
    "post_fts_insert": f"AFTER INSERT ON post BEGIN {ADD} END",
    "post_fts_delete": f"AFTER DELETE ON post BEGIN {REMOVE} END",
    "post_fts_update": f"AFTER UPDATE OF terms ON post BEGIN {REMOVE} {ADD} END",
}


def upgrade():
    if op.get_bind().dialect.name == "postgresql":
        op.add_column("post", sa.Column("terms", TSVECTOR()))
        # What waits to go into the index is looked through by every search: it is to stay short.
        op.create_index(
            "ix_post_terms", "post", ["terms"], postgresql_using="gin", postgresql_with={"gin_pending_list_limit": 512}
        )
    else:
        op.add_column("post", sa.Column("terms", sa.Text()))
        op.execute(FTS5)
        op.execute("INSERT INTO post_fts(post_fts) VALUES ('rebuild')")
        for name, trigger in TRIGGERS.items():
            op.execute(f"CREATE TRIGGER {name} {trigger}")
    op.create_index("ix_post_unindexed", "post", ["id"], sqlite_where=MISSING, postgresql_where=MISSING)


def downgrade():
    op.drop_index("ix_post_unindexed", table_name="post")
    if op.get_bind().dialect.name == "postgresql":
        op.drop_index("ix_post_terms", table_name="post")
    else:
        for name in TRIGGERS:
            op.execute(f"DROP TRIGGER {name}")
        op.execute("DROP TABLE post_fts")
    op.drop_column("post", "terms")
