"""indexes by which operators list jobs

Revision ID: lists
Revises: statistics

"""
import sqlalchemy as sa
from alembic import op

revision = "lists"
down_revision = "statistics"
branch_labels = None
depends_on = None

ROOT = "position = 0"
SETBACK = "state IN ('FAILURE', 'REVOKED')"
FINISHED = "state IN ('SUCCESS', 'FAILURE', 'REVOKED')"
INDEXES = {
    "ix_task_created_at": (["created_at"], ROOT),
    "ix_task_setback": (["state", "created_at"], SETBACK),
    "ix_task_finished_name": (["name", "created_at"], FINISHED),
    "ix_task_finished_queue": (["queue", "created_at"], FINISHED),
    "ix_task_finished_worker": (["worker", "created_at"], FINISHED),
}


def upgrade():
    with op.batch_alter_table("task") as table:
        for name, (columns, where) in INDEXES.items():
            table.create_index(name, columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where))


def downgrade():
    with op.batch_alter_table("task") as table:
        for name in reversed(INDEXES):
            table.drop_index(name)
