"""operators

Revision ID: 0005
Revises: 0004
Create Date: 2026-11-21 13:25:00.000000

"""
from alembic import op
import sqlalchemy as sa

# revision identifiers, used by Alembic.
revision = '0005'
down_revision = '0004'
branch_labels = None
depends_on = None


# Not in batch mode: on SQLite that would make the table anew, and dropping the old one takes with it all that refers
# to a user, and the indexes over expressions.
def upgrade():
    op.add_column('user', sa.Column('is_operator', sa.Boolean(), server_default=sa.false(), nullable=False))


def downgrade():
    op.drop_column('user', 'is_operator')
