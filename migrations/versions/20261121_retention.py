"""by what old rows are found and purged, and which attempt made an archive

Revision ID: 0002
Revises: 0001

"""
import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

ENDED = sa.text("finished_at IS NOT NULL")


def upgrade():
    op.create_index("ix_task_finished_at", "task", ["finished_at"], sqlite_where=ENDED, postgresql_where=ENDED)
    op.add_column("archive", sa.Column("attempt", sa.Integer(), nullable=False, server_default="0"))
    op.create_index("ix_sent_mail_accepted_at", "sent_mail", ["accepted_at"])


def downgrade():
    op.drop_column("archive", "attempt")
    op.drop_index("ix_sent_mail_accepted_at", table_name="sent_mail")
    op.drop_index("ix_task_finished_at", table_name="task")
