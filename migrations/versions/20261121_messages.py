"""private messages, and what users are told

Revision ID: 0014
Revises: 0013

"""
import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

UNREAD = sa.text("read_at IS NULL")
ABOUT_SOMEBODY = sa.text("actor_id IS NOT NULL")


def moment(name, nullable=False):
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def user(table, name, nullable=False):
    key = sa.ForeignKey("user.id", name=op.f(f"fk_{table}_{name}_user"), ondelete="CASCADE")
    return sa.Column(name, sa.Integer(), key, nullable=nullable)


def upgrade():
    op.create_table(
        "message",
        sa.Column("id", sa.Integer(), nullable=False),
        user("message", "sender_id"),
        user("message", "recipient_id"),
        sa.Column("body", sa.String(1000), nullable=False),
        moment("timestamp"),
        moment("read_at", nullable=True),
        moment("sender_deleted_at", nullable=True),
        moment("recipient_deleted_at", nullable=True),
        sa.CheckConstraint("sender_id <> recipient_id", name=op.f("ck_message_somebody_else")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_message")),
    )
    op.create_index("ix_message_recipient_id_timestamp_id", "message", ["recipient_id", "timestamp", "id"])
    op.create_index("ix_message_sender_id_timestamp_id", "message", ["sender_id", "timestamp", "id"])
    op.create_index(
        "ix_message_sender_id_recipient_id_timestamp_id", "message", ["sender_id", "recipient_id", "timestamp", "id"]
    )
    op.create_index(
        "ix_message_unread", "message", ["recipient_id", "sender_id"], sqlite_where=UNREAD, postgresql_where=UNREAD
    )
    op.create_table(
        "notification",
        sa.Column("id", sa.Integer(), nullable=False),
        user("notification", "user_id"),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("subject", sa.String(64), nullable=False),
        user("notification", "actor_id", nullable=True),
        sa.Column("payload", sa.JSON(), nullable=False),
        moment("timestamp"),
        moment("updated_at"),
        moment("read_at", nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notification")),
        sa.UniqueConstraint("user_id", "name", "subject", name="uq_notification_user_id_name_subject"),
    )
    op.create_index("ix_notification_user_id_timestamp_id", "notification", ["user_id", "timestamp", "id"])
    op.create_index("ix_notification_user_id_updated_at", "notification", ["user_id", "updated_at"])
    op.create_index(
        "ix_notification_unread", "notification", ["user_id"], sqlite_where=UNREAD, postgresql_where=UNREAD
    )
    op.create_index("ix_notification_timestamp", "notification", ["timestamp"])
    op.create_index(
        "ix_notification_actor_id",
        "notification",
        ["actor_id"],
        sqlite_where=ABOUT_SOMEBODY,
        postgresql_where=ABOUT_SOMEBODY,
    )


def downgrade():
    op.drop_table("notification")
    op.drop_table("message")
