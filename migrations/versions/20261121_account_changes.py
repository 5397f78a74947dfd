"""accounts that are being deleted, and mail addresses that wait to be confirmed

Revision ID: 0010
Revises: 0009

"""
import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


# Not in batch mode: see 0005.
def upgrade():
    op.add_column("user", sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True))
    condition = sa.text("deleted_at IS NOT NULL")
    op.create_index("ix_user_deleted_at", "user", ["deleted_at"], sqlite_where=condition, postgresql_where=condition)
    op.create_table(
        "email_change",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("old_address", sa.String(254), nullable=False),
        sa.Column("new_address", sa.String(254), nullable=False),
        sa.Column("requested_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("confirmed_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["user_id"], ["user.id"], name=op.f("fk_email_change_user_id_user"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_email_change")),
    )
    op.create_index(op.f("ix_email_change_user_id"), "email_change", ["user_id"])
    op.create_index(op.f("ix_email_change_requested_at"), "email_change", ["requested_at"])


def downgrade():
    op.drop_table("email_change")
    op.drop_index("ix_user_deleted_at", "user")
    op.drop_column("user", "deleted_at")
