"""Deletion of an account: closed in the request, its data deleted in batches by a task, then its row.

Rows that refer to the user by ON DELETE CASCADE are found in the metadata. A package that stores data elsewhere, such
as files, registers a function that deletes it with its rows (which refer by ON DELETE SET NULL if a file must keep its
row, so that a file stored late is found) ::

    @deletion.on_account_deletion
    def delete_files_of(user_id: int) -> int: ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, cast

import sqlalchemy as sa
from flask_babel import gettext as _

from microblog.accounts.models import User
from microblog.accounts.signals import account_closed, password_changed
from microblog.clock import utcnow
from microblog.extensions import db
from microblog.jobs.services import delete_jobs_of_user
from microblog.notifications.pubsub import end_streams
from microblog.notifications.push import push
from microblog.notifications.services import forget_actor
from microblog.taskqueue.launch import launch_task
from microblog.taskqueue.models import Task

BATCH = 2000  # rows that one transaction deletes
MOST_TOLD = 100  # readers whose open pages count anew at once as an account is closed; others do with their next event
NO_PASSWORD = "!"  # noqa: S105 - the hash of nothing: no password fits

Deleter = Callable[[int], int]
_deleters: dict[Deleter, None] = {}


def on_account_deletion(deleter: Deleter) -> Deleter:
    """Register a function that deletes what a package keeps of a user outside the tables, before their rows go.

    It returns how many rows it deleted along with that. It may be called again for the same user.
    """
    _deleters[deleter] = None  # once, however many applications are made
    return deleter


def close_account(user: User) -> bool:
    """Close the account of `user` and have it deleted, and commit that; False if it is closed already.

    From now on the user can no longer sign in, and nobody sees them, or what they wrote, not even on a page that is
    open. Both jobs are the system's: rows of the user's own would go with the user.
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
    told = forget_actor(closed)
    mail = launch_task("email_account_deleted", _("Confirming that an account is deleted"), closed)
    launch_task("delete_account", _("Deleting an account"), closed, mail.id)
    db.session.commit()
    end_streams(closed)
    account_closed.send(closed)
    for reader_id in islice(told, MOST_TOLD):
        push(reader_id)
    return True


def is_closed(user_id: int) -> bool:
    """Return whether there is such an account, and it is to be deleted."""
    return db.session.scalar(_closed(user_id)) is not None


def count_user_data(user_id: int) -> int:
    """Return the number of rows that belong to the user, in all tables."""
    owned = [sa.select(sa.func.count()).where(key.parent == user_id).scalar_subquery() for key in _references()]
    return sum(db.session.execute(sa.select(*owned)).one())


def delete_user_data(user_id: int) -> Iterator[int]:
    """Delete the data of a closed account, in batches; yield the number of deleted rows after each commit.

    The account itself stays. Its jobs must have ended (jobs.services.cancel_jobs_of_user). Nothing is deleted if the
    account is not closed.
    """
    if not is_closed(user_id):
        return
    for delete in _deleters:
        yield delete(user_id)
    for column in _owned():
        statement = _delete_batch(column, user_id)
        while found := cast("sa.CursorResult[Any]", db.session.execute(statement)).rowcount:
            db.session.commit()
            yield found
        db.session.rollback()
    yield from delete_jobs_of_user(user_id)


def delete_user(user_id: int) -> None:
    """Delete a closed account itself, and commit that: its name and its address are free."""
    db.session.execute(sa.delete(User).where(User.id.in_(_closed(user_id))))
    db.session.commit()


_JOBS = Task.__table__.c.user_id


def _owned() -> list[sa.Column[Any]]:
    """The columns that name whose a row is, of all tables but that of jobs; those that refer to others come first."""
    return [key.parent for key in _references() if key.ondelete == "CASCADE" and key.parent is not _JOBS]


def _references() -> list[sa.ForeignKey]:
    """All that refers to users, whatever becomes of it."""
    return [
        key
        for table in reversed(db.metadata.sorted_tables)
        for key in sorted(table.foreign_keys, key=lambda key: key.parent.name)
        if key.column.table is User.__table__
    ]


def _delete_batch(owner: sa.Column[Any], user_id: int) -> sa.Delete:
    # Whose account is not closed loses nothing, whatever this is called with.
    table = owner.table
    key = list(table.primary_key)
    batch = sa.select(*key).where(owner == _closed(user_id).scalar_subquery()).limit(BATCH)
    if "timestamp" in table.c:  # lists, newest first, are soon rid of what they have to leave out
        batch = batch.order_by(*(column.desc() for column in (table.c.timestamp, *key)))
    return sa.delete(table).where(sa.tuple_(*key).in_(batch))


def _closed(user_id: int) -> sa.Select[int]:
    return sa.select(User.id).where(User.id == user_id, User.deleted_at.is_not(None))
