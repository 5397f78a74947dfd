"""statistics of finished tasks

Revision ID: 0003
Revises: 0002
Create Date: 2026-11-21 13:40:00

"""
from datetime import datetime, timezone

from alembic import op
import sqlalchemy as sa

# revision identifiers, used by Alembic.
revision = '0003'
down_revision = '0002'
branch_labels = None
depends_on = None

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def sums():
    return [
        sa.Column('name', sa.String(length=128), nullable=False),
        sa.Column('state', sa.String(length=16), nullable=False),
        sa.Column('count', sa.Integer(), nullable=False),
        sa.Column('jobs', sa.Integer(), nullable=False),
        sa.Column('attempts', sa.Integer(), nullable=False),
        sa.Column('crashes', sa.Integer(), nullable=False),
        sa.Column('given_up', sa.Integer(), nullable=False),
        sa.Column('wait_seconds', sa.Float(), nullable=False),
        sa.Column('wait_sketch', sa.JSON(), nullable=False),
        sa.Column('run_seconds', sa.Float(), nullable=False),
        sa.Column('run_sketch', sa.JSON(), nullable=False),
    ]


def upgrade():
    op.create_table('task_hour',
    sa.Column('hour', sa.DateTime(timezone=True), nullable=False),
    *sums(),
    sa.PrimaryKeyConstraint('hour', 'name', 'state', name=op.f('pk_task_hour'))
    )
    op.create_table('task_total',
    *sums(),
    sa.PrimaryKeyConstraint('name', 'state', name=op.f('pk_task_total'))
    )
    roll_up = op.create_table('task_roll_up',
    sa.Column('id', sa.Integer(), autoincrement=False, nullable=False),
    sa.Column('runs', sa.BigInteger(), nullable=False),
    sa.Column('until', sa.DateTime(timezone=True), nullable=False),
    sa.Column('settled_until', sa.DateTime(timezone=True), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_task_roll_up'))
    )
    op.bulk_insert(roll_up, [{'id': 1, 'runs': 0, 'until': EPOCH, 'settled_until': EPOCH}])


def downgrade():
    op.drop_table('task_roll_up')
    op.drop_table('task_total')
    op.drop_table('task_hour')
