"""The signature and number of an automatic retry, which reconcile publishes if its message is missing.

Revision ID: 0002_retry_signature
Revises: 0001_jobs
"""

import sqlalchemy as sa
from alembic import op

revision = "0002_retry_signature"
down_revision = "0001_jobs"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("task") as table:
        table.add_column(sa.Column("retry_signature", sa.JSON(none_as_null=True), nullable=True))
        table.add_column(sa.Column("retries", sa.Integer(), nullable=False, server_default="0"))


def downgrade() -> None:
    with op.batch_alter_table("task") as table:
        table.drop_column("retries")
        table.drop_column("retry_signature")
