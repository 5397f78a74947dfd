"""Deletion of an account: the request closes it, a task deletes its data in batches and finally its row.

Rows that reference the user with ON DELETE CASCADE are found through the metadata. A package that stores other data,
such as files, registers a function that deletes the data and its rows before those of the user, and returns their
number. It may be called more than once for the same user. These rows use ON DELETE SET NULL if they must outlive the
user, so that a file stored during the deletion is still found ::

    @on_account_deletion("files")
    def delete_files_of(user_id: int) -> int: ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import sqlalchemy as sa
from flask_babel import gettext as _

from microblog.accounts.models import User, account_closed, password_changed
from microblog.clock import utcnow
from microblog.database import deleted_batches
from microblog.extensions import db
from microblog.jobs.services import delete_jobs_of_user
from microblog.notifications.pubsub import end_streams
from microblog.notifications.push import push
from microblog.notifications.services import delete_notifications_by_actor
from microblog.registry import Registry
from microblog.taskqueue.launch import launch_task
from microblog.taskqueue.models import Task

BATCH = 2000  # rows deleted per transaction
MAX_PUSHED = 100  # users who get new unread counts when an account is closed; others get them with their next event
NO_PASSWORD = "!"  # noqa: S105 - not a hash: no password matches it

Deleter = Callable[[int], int]
_deleters = Registry[Deleter]()
on_account_deletion = _deleters.register


def close_account(user: User) -> bool:
    """Close the account of `user`, launch its deletion and commit. Return False if it is already closed.

    From then on the user cannot sign in, and neither the user nor anything they wrote is visible, not even on open
    pages. Both jobs belong to the system: jobs of the user would be deleted with the user.
    """
    closed = db.session.scalar(
        sa.update(User)
        .where(User.id == user.id, User.deleted_at.is_(None))
        .values(deleted_at=utcnow(), password_hash=NO_PASSWORD)
        .returning(User.id)
    )
    if closed is None:
        db.session.rollback()
        return False
    password_changed.send(user)
    reader_ids = delete_notifications_by_actor(closed)
    mail = launch_task("email_account_deleted", _("Confirming that an account is deleted"), closed)
    launch_task("delete_account", _("Deleting an account"), closed, mail.id)
    db.session.commit()
    end_streams(closed)
    account_closed.send(closed)
    for reader_id in islice(reader_ids, MAX_PUSHED):
        push(reader_id)
    return True


def is_closed(user_id: int) -> bool:
    """Return whether the account exists and is being deleted."""
    return db.session.scalar(_closed(user_id)) is not None


def count_user_data(user_id: int) -> int:
    """Return the number of rows that belong to the user, in all tables."""
    owned = [sa.select(sa.func.count()).where(key.parent == user_id).scalar_subquery() for key in _references()]
    return sum(db.session.execute(sa.select(*owned)).one())


def delete_user_data(user_id: int) -> Iterator[int]:
    """Delete the data of a closed account in batches; yield the number of deleted rows after each commit.

    The account itself remains. Its jobs must have ended (see jobs.services.cancel_jobs_of_user). Nothing is deleted if
    the account is not closed.
    """
    if not is_closed(user_id):
        return
    for delete in _deleters.values():
        deleted = delete(user_id)
        db.session.commit()
        yield deleted
    for column in _owned():
        yield from deleted_batches(db.session, _delete_batch(column, user_id))
    yield from delete_jobs_of_user(user_id)


def delete_user(user_id: int) -> None:
    """Delete a closed account and commit; its username and address become available."""
    db.session.execute(sa.delete(User).where(User.id.in_(_closed(user_id))))
    db.session.commit()


_JOBS = Task.__table__.c.user_id


def _owned() -> list[sa.Column[Any]]:
    """Return the columns that reference a row's owner, in all tables except jobs; referencing tables come first."""
    return [key.parent for key in _references() if key.ondelete == "CASCADE" and key.parent is not _JOBS]


def _references() -> list[sa.ForeignKey]:
    """Return all foreign keys to the user table, whatever their ON DELETE action."""
    return [
        key
        for table in reversed(db.metadata.sorted_tables)
        for key in sorted(table.foreign_keys, key=lambda key: key.parent.name)
        if key.column.table is User.__table__
    ]


def _delete_batch(owner: sa.Column[Any], user_id: int) -> sa.Delete:
    # The subquery is empty unless the account is closed, so an open account cannot lose data.
    table = owner.table
    key = list(table.primary_key)
    batch = sa.select(*key).where(owner == _closed(user_id).scalar_subquery()).limit(BATCH)
    if "timestamp" in table.c:  # newest first: lists start there, and must filter these rows out until then
        batch = batch.order_by(*(column.desc() for column in (table.c.timestamp, *key)))
    return sa.delete(table).where(sa.tuple_(*key).in_(batch))


def _closed(user_id: int) -> sa.Select[int]:
    return sa.select(User.id).where(User.id == user_id, User.deleted_at.is_not(None))
