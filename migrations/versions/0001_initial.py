"""Initial schema.

Revision ID: 0001_jobs
Revises:
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import TSVECTOR

revision = "0001_jobs"
down_revision = None
branch_labels = None
depends_on = None

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ENDED, ROOT, UNREAD = sa.text("finished_at IS NOT NULL"), sa.text("position = 0"), sa.text("read_at IS NULL")
UNFINISHED = sa.text("state IN ('PENDING', 'RETRY', 'STARTED', 'PROGRESS')")

# SQLite's full-text index of posts, maintained by triggers. Its row ids put posts that were imported before all others.
PLACE = "{0}.id - 2147483648 * {0}.imported"
FTS_OPTIONS = "content='post_terms', content_rowid='place', tokenize='ascii', prefix='3 4'"
ADD = f"INSERT INTO post_fts(rowid, terms) VALUES ({PLACE.format('new')}, new.terms);"
REMOVE = f"INSERT INTO post_fts(post_fts, rowid, terms) VALUES ('delete', {PLACE.format('old')}, old.terms);"
FULL_TEXT_INDEX = (
    "CREATE VIEW post_terms AS SELECT id - 2147483648 * imported AS place, terms FROM post",
    f"CREATE VIRTUAL TABLE post_fts USING fts5(terms, {FTS_OPTIONS})",
    f"CREATE TRIGGER post_fts_insert AFTER INSERT ON post BEGIN {ADD} END",
    f"CREATE TRIGGER post_fts_delete AFTER DELETE ON post BEGIN {REMOVE} END",
    f"CREATE TRIGGER post_fts_update AFTER UPDATE OF terms, imported ON post BEGIN {REMOVE} {ADD} END",
)


def where(condition: sa.TextClause) -> dict[str, Any]:
    """The options of a partial index."""
    return {"sqlite_where": condition, "postgresql_where": condition}


def aggregate_columns() -> list[sa.Column[Any]]:
    """The columns that both tables of statistics share."""
    return [
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("jobs", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("crashes", sa.Integer(), nullable=False),
        sa.Column("given_up", sa.Integer(), nullable=False),
        sa.Column("wait_seconds", sa.Float(), nullable=False),
        sa.Column("wait_sketch", sa.JSON(), nullable=False),
        sa.Column("run_seconds", sa.Float(), nullable=False),
        sa.Column("run_sketch", sa.JSON(), nullable=False),
    ]


def upgrade() -> None:
    op.create_table(
        "error_report",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("exception", sa.String(length=255), nullable=False),
        sa.Column("place", sa.String(length=255), nullable=False),
        sa.Column("traceback", sa.Text(), nullable=False),
        sa.Column("suppressed", sa.Integer(), nullable=False),
        sa.Column("method", sa.String(length=16), nullable=True),
        sa.Column("path", sa.String(length=255), nullable=True),
        sa.Column("task_id", sa.String(length=36), nullable=True),
        sa.Column("task_name", sa.String(length=128), nullable=True),
        sa.Column("request_id", sa.String(length=64), nullable=True),
        sa.Column("user_id", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_error_report")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_error_report_created_at", "error_report", ["created_at"])
    op.create_table(
        "sent_mail",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("message_id", sa.String(length=255), nullable=False),
        sa.Column("accepted_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sent_mail")),
    )
    op.create_index("ix_sent_mail_accepted_at", "sent_mail", ["accepted_at"])
    op.create_table(
        "task_hour",
        sa.Column("hour", sa.DateTime(timezone=True), nullable=False),
        *aggregate_columns(),
        sa.PrimaryKeyConstraint("hour", "name", "state", name=op.f("pk_task_hour")),
    )
    roll_up = op.create_table(
        "task_roll_up",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("runs", sa.BigInteger(), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("settled_until", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_task_roll_up")),
    )
    op.create_table(
        "task_total",
        *aggregate_columns(),
        sa.PrimaryKeyConstraint("name", "state", name=op.f("pk_task_total")),
    )
    op.create_table(
        "user",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("username", sa.String(length=64), nullable=False),
        sa.Column("email", sa.String(length=254), nullable=False),
        sa.Column("password_hash", sa.String(length=256), nullable=False),
        sa.Column("about_me", sa.String(length=280), server_default="", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_seen_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("locale", sa.String(length=16), nullable=True),
        sa.Column("timezone", sa.String(length=64), nullable=True),
        sa.Column("is_operator", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_user")),
        sa.UniqueConstraint("email", name=op.f("uq_user_email")),
        sa.UniqueConstraint("username", name=op.f("uq_user_username")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_user_deleted_at", "user", ["deleted_at"], **where(sa.text("deleted_at IS NOT NULL")))
    op.create_table(
        "api_token",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=64), server_default="", nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["user.id"], name=op.f("fk_api_token_user_id_user"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_token")),
        sa.UniqueConstraint("hash", name=op.f("uq_api_token_hash")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_api_token_user_id", "api_token", ["user_id"])
    op.create_table(
        "archive",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("path", sa.String(length=255), nullable=False),
        sa.Column("posts", sa.Integer(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["user.id"], name=op.f("fk_archive_user_id_user"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_archive")),
    )
    op.create_index("ix_archive_expires_at", "archive", ["expires_at"])
    op.create_index("ix_archive_user_id", "archive", ["user_id"])
    op.create_table(
        "email_change",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("old_address", sa.String(length=254), nullable=False),
        sa.Column("new_address", sa.String(length=254), nullable=False),
        sa.Column("requested_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("confirmed_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["user_id"], ["user.id"], name=op.f("fk_email_change_user_id_user"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_email_change")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_email_change_requested_at", "email_change", ["requested_at"])
    op.create_index("ix_email_change_user_id", "email_change", ["user_id"])
    op.create_table(
        "follow",
        sa.Column("follower_id", sa.Integer(), nullable=False),
        sa.Column("followed_id", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("follower_id <> followed_id", name=op.f("ck_follow_not_self")),
        sa.ForeignKeyConstraint(
            ["followed_id"], ["user.id"], name=op.f("fk_follow_followed_id_user"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["follower_id"], ["user.id"], name=op.f("fk_follow_follower_id_user"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("follower_id", "followed_id", name=op.f("pk_follow")),
    )
    op.create_index(
        "ix_follow_followed_id_created_at_follower_id", "follow", ["followed_id", "created_at", "follower_id"]
    )
    op.create_index(
        "ix_follow_follower_id_created_at_followed_id", "follow", ["follower_id", "created_at", "followed_id"]
    )
    op.create_table(
        "message",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("sender_id", sa.Integer(), nullable=False),
        sa.Column("recipient_id", sa.Integer(), nullable=False),
        sa.Column("body", sa.String(length=1000), nullable=False),
        sa.Column("timestamp", sa.DateTime(timezone=True), nullable=False),
        sa.Column("read_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("sender_deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("recipient_deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("sender_id <> recipient_id", name=op.f("ck_message_not_self")),
        sa.ForeignKeyConstraint(
            ["recipient_id"], ["user.id"], name=op.f("fk_message_recipient_id_user"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["sender_id"], ["user.id"], name=op.f("fk_message_sender_id_user"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_message")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_message_recipient_id_timestamp_id", "message", ["recipient_id", "timestamp", "id"])
    op.create_index(
        "ix_message_sender_id_recipient_id_timestamp_id", "message", ["sender_id", "recipient_id", "timestamp", "id"]
    )
    op.create_index("ix_message_sender_id_timestamp_id", "message", ["sender_id", "timestamp", "id"])
    op.create_index("ix_message_unread", "message", ["recipient_id", "sender_id"], **where(UNREAD))
    op.create_table(
        "notification",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("subject", sa.String(length=64), nullable=False),
        sa.Column("actor_id", sa.Integer(), nullable=True),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("timestamp", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("read_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["actor_id"], ["user.id"], name=op.f("fk_notification_actor_id_user"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["user.id"], name=op.f("fk_notification_user_id_user"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notification")),
        sa.UniqueConstraint("user_id", "name", "subject", name="uq_notification_user_id_name_subject"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_notification_actor_id", "notification", ["actor_id"], **where(sa.text("actor_id IS NOT NULL")))
    op.create_index("ix_notification_timestamp", "notification", ["timestamp"])
    op.create_index("ix_notification_unread", "notification", ["user_id"], **where(UNREAD))
    op.create_index("ix_notification_user_id_timestamp_id", "notification", ["user_id", "timestamp", "id"])
    op.create_index("ix_notification_user_id_updated_at", "notification", ["user_id", "updated_at"])
    op.create_table(
        "post",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("body", sa.String(length=140), nullable=False),
        sa.Column("timestamp", sa.DateTime(timezone=True), nullable=False),
        sa.Column("language", sa.String(length=35), nullable=True),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("imported", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("terms", sa.Text().with_variant(TSVECTOR(), "postgresql"), nullable=True),
        sa.ForeignKeyConstraint(["user_id"], ["user.id"], name=op.f("fk_post_user_id_user"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_post")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_post_timestamp_id", "post", ["timestamp", "id"])
    op.create_index("ix_post_unindexed", "post", ["id"], **where(sa.text("terms IS NULL")))
    op.create_index("ix_post_user_id_timestamp_id", "post", ["user_id", "timestamp", "id"])
    op.create_table(
        "task",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("root_id", sa.String(length=36), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=True),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("progress", sa.Integer(), nullable=False),
        sa.Column("current", sa.BigInteger(), nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=True),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("result", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("traceback", sa.Text(), nullable=True),
        sa.Column("queue", sa.String(length=64), nullable=False),
        sa.Column("worker", sa.String(length=255), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("crashes", sa.Integer(), nullable=False),
        sa.Column("signature", sa.JSON(), nullable=False),
        sa.Column("published_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("eta", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("cancel_requested_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("retried_from", sa.String(length=36), nullable=True),
        sa.ForeignKeyConstraint(["user_id"], ["user.id"], name=op.f("fk_task_user_id_user"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_task")),
    )
    op.create_index("ix_task_created_at", "task", ["created_at"], **where(ROOT))
    op.create_index("ix_task_failed_created_at", "task", ["created_at"], **where(sa.text("state = 'FAILURE'")))
    op.create_index("ix_task_finished_at", "task", ["finished_at"], **where(ENDED))
    op.create_index("ix_task_name_created_at", "task", ["name", "created_at"], **where(ENDED))
    op.create_index("ix_task_queue_created_at", "task", ["queue", "created_at"], **where(ENDED))
    op.create_index("ix_task_retried_from", "task", ["retried_from"], **where(sa.text("retried_from IS NOT NULL")))
    op.create_index("ix_task_revoked_created_at", "task", ["created_at"], **where(sa.text("state = 'REVOKED'")))
    op.create_index("ix_task_root_id_position", "task", ["root_id", "position"])
    op.create_index("ix_task_unfinished", "task", ["created_at"], **where(UNFINISHED))
    op.create_index("ix_task_user_id_created_at_id", "task", ["user_id", "created_at", "id"], **where(ROOT))
    op.create_index("ix_task_user_id_updated_at", "task", ["user_id", "updated_at"])
    op.create_index("ix_task_worker_created_at", "task", ["worker", "created_at"], **where(ENDED))
    op.create_index("uq_task_unfinished_per_user", "task", ["user_id", "name"], unique=True, **where(UNFINISHED))
    op.create_table(
        "upload",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=True),
        sa.Column("imported", sa.Integer(), nullable=False),
        sa.Column("report", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["user.id"], name=op.f("fk_upload_user_id_user"), ondelete="SET NULL"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_upload")),
    )
    op.create_index("ix_upload_expires_at", "upload", ["expires_at"])
    op.create_index("ix_upload_user_id", "upload", ["user_id"])
    op.create_table(
        "rejected_entry",
        sa.Column("upload_id", sa.String(length=36), nullable=False),
        sa.Column("place", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("line", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("address", sa.String(length=500), nullable=True),
        sa.ForeignKeyConstraint(
            ["upload_id"], ["upload.id"], name=op.f("fk_rejected_entry_upload_id_upload"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("upload_id", "place", name=op.f("pk_rejected_entry")),
    )
    op.create_table(
        "translation",
        sa.Column("post_id", sa.Integer(), nullable=False),
        sa.Column("language", sa.String(length=35), nullable=False),
        sa.Column("body", sa.String(length=2000), nullable=False),
        sa.ForeignKeyConstraint(["post_id"], ["post.id"], name=op.f("fk_translation_post_id_post"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("post_id", "language", name=op.f("pk_translation")),
    )
    for column in ("username", "email"):
        op.create_index(f"uq_user_{column}_lower", "user", [sa.text(f"lower({column})")], unique=True)
    op.bulk_insert(roll_up, [{"id": 1, "runs": 0, "until": EPOCH, "settled_until": EPOCH}])
    if op.get_bind().dialect.name == "postgresql":
        # Every search scans the index's pending list, so its size is limited.
        op.create_index(
            "ix_post_terms", "post", ["terms"], postgresql_using="gin", postgresql_with={"gin_pending_list_limit": 512}
        )
        op.create_index("ix_post_imported_id", "post", ["imported", sa.text("id DESC")], postgresql_using="btree")
    else:
        for statement in FULL_TEXT_INDEX:
            op.execute(statement)


def downgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        op.execute("DROP TABLE post_fts")
        op.execute("DROP VIEW post_terms")
    for table in (
        "translation",
        "rejected_entry",
        "upload",
        "task",
        "post",
        "notification",
        "message",
        "follow",
        "email_change",
        "archive",
        "api_token",
        "user",
        "task_total",
        "task_roll_up",
        "task_hour",
        "sent_mail",
        "error_report",
    ):
        op.drop_table(table)
