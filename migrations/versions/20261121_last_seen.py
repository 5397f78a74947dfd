"""when each user was last seen

Revision ID: 0007
Revises: 0006

"""
import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


# Not in batch mode: on SQLite that would make the table anew, and take with it all that refers to a user.
def upgrade():
    op.add_column("user", sa.Column("last_seen_at", sa.DateTime(timezone=True), nullable=True))


def downgrade():
    op.drop_column("user", "last_seen_at")
