"""language and time zone of users

Revision ID: 0012
Revises: 0011
Create Date: 2026-11-21 17:00:00.000000

"""
from alembic import op
import sqlalchemy as sa

# revision identifiers, used by Alembic.
revision = '0012'
down_revision = '0011'
branch_labels = None
depends_on = None


def upgrade():
    op.add_column('user', sa.Column('locale', sa.String(length=16), nullable=True))
    op.add_column('user', sa.Column('timezone', sa.String(length=64), nullable=True))


def downgrade():
    op.drop_column('user', 'timezone')
    op.drop_column('user', 'locale')
