"""what each token of the API is for

Revision ID: 0008
Revises: 0007

"""
import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade():
    op.add_column("api_token", sa.Column("name", sa.String(64), nullable=False, server_default=""))


def downgrade():
    op.drop_column("api_token", "name")
