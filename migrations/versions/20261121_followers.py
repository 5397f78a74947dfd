"""who follows whom, and what users tell of themselves

Revision ID: 0006
Revises: 0005

"""
import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade():
    op.create_table(
        "follow",
        sa.Column("follower_id", sa.Integer(), nullable=False),
        sa.Column("followed_id", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("follower_id <> followed_id", name=op.f("ck_follow_somebody_else")),
        sa.ForeignKeyConstraint(["followed_id"], ["user.id"], name=op.f("fk_follow_followed_id_user"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["follower_id"], ["user.id"], name=op.f("fk_follow_follower_id_user"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("follower_id", "followed_id", name=op.f("pk_follow")),
    )
    op.create_index(
        "ix_follow_followed_id_created_at_follower_id", "follow", ["followed_id", "created_at", "follower_id"]
    )
    op.create_index(
        "ix_follow_follower_id_created_at_followed_id", "follow", ["follower_id", "created_at", "followed_id"]
    )
    op.add_column("user", sa.Column("about_me", sa.String(280), nullable=False, server_default=""))


def downgrade():
    op.drop_column("user", "about_me")
    op.drop_table("follow")
