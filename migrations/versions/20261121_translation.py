"""languages of posts, and their translations

Revision ID: 0009
Revises: 0008
Create Date: 2026-11-21 17:10:00

"""
from alembic import op
import sqlalchemy as sa

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade():
    op.add_column("post", sa.Column("language", sa.String(length=35), nullable=True))
    op.create_table(
        "translation",
        sa.Column("post_id", sa.Integer(), nullable=False),
        sa.Column("language", sa.String(length=35), nullable=False),
        sa.Column("body", sa.String(length=2000), nullable=False),
        sa.ForeignKeyConstraint(
            ["post_id"], ["post.id"], name=op.f("fk_translation_post_id_post"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("post_id", "language", name=op.f("pk_translation")),
    )


def downgrade():
    op.drop_table("translation")
    op.drop_column("post", "language")
