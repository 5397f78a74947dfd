"""indexes by which operators list jobs

Revision ID: 0004
Revises: 0003

"""
import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

ENDED = "finished_at IS NOT NULL"
INDEXES = {
    "ix_task_created_at": (["created_at"], "position = 0"),
    "ix_task_failed_created_at": (["created_at"], "state = 'FAILURE'"),
    "ix_task_revoked_created_at": (["created_at"], "state = 'REVOKED'"),
    "ix_task_name_created_at": (["name", "created_at"], ENDED),
    "ix_task_queue_created_at": (["queue", "created_at"], ENDED),
    "ix_task_worker_created_at": (["worker", "created_at"], ENDED),
    "ix_task_retried_from": (["retried_from"], "retried_from IS NOT NULL"),
}


def upgrade():
    with op.batch_alter_table("task") as table:
        for name, (columns, where) in INDEXES.items():
            table.create_index(name, columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where))


def downgrade():
    with op.batch_alter_table("task") as table:
        for name in reversed(INDEXES):
            table.drop_index(name)
