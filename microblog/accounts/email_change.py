"""Change of the email address: requested, confirmed by a link to the new address, reported to the old one."""

from __future__ import annotations

from datetime import timedelta

import sqlalchemy as sa
from flask import current_app
from flask_babel import gettext as _
from sqlalchemy.exc import IntegrityError

from microblog.accounts.models import EmailChange, User
from microblog.clock import utcnow
from microblog.extensions import db
from microblog.taskqueue.launch import launch_task

RETENTION = timedelta(days=7)  # after the link has expired, so that the mail to the old address can be retried manually


class EmailTaken(Exception):
    """Raised if another user has taken the address since the request."""


def request_email_change(user: User, address: str) -> None:
    """Launch the mail with a link that makes `address` the address of `user`, in the caller's transaction.

    Links of earlier requests become invalid. Raises AlreadyRunning while the mail of an earlier request is pending.
    """
    db.session.execute(sa.delete(EmailChange).where(EmailChange.user_id == user.id, EmailChange.confirmed_at.is_(None)))
    change = EmailChange(user=user, old_address=user.email, new_address=address)
    db.session.add(change)
    db.session.flush()
    user.launch_task("email_confirm_address", _("Mailing a link to your new address"), change.id)


def pending_email_change(user: User) -> EmailChange | None:
    """Return the unconfirmed change of `user` if its link can still be valid, or None."""
    since = utcnow() - timedelta(seconds=current_app.config["ACCOUNT_LINK_LIFETIME"])
    query = sa.select(EmailChange).where(EmailChange.user_id == user.id, EmailChange.requested_at > since)
    return db.session.scalar(query.where(EmailChange.confirmed_at.is_(None)).order_by(EmailChange.id.desc()).limit(1))


def confirm_email_change(change: EmailChange) -> bool:
    """Make the new address the user's, launch the mail to the old one, and commit. Raises EmailTaken.

    Return False and change nothing if, since `change` and its user were read, the change was confirmed or deleted, the
    user's password or address was changed, or the account was closed.

    The mail is not a job of the user: someone who has taken over the account must not be able to cancel it.
    """
    change_id = change.id
    try:
        confirmed = _confirm_once(change)
    except IntegrityError:
        db.session.rollback()
        raise EmailTaken from None
    if not confirmed:
        db.session.rollback()
        return False
    launch_task("email_changed_address", _("Telling the old address of a change"), change_id)
    db.session.commit()
    return True


def _confirm_once(change: EmailChange) -> bool:
    """Update both rows if neither has changed since it was read. A concurrent change waits, then matches no row."""
    user, address = change.user, change.new_address
    unchanged = (User.id == user.id, User.password_hash == user.password_hash, User.email == user.email)
    confirmed = db.session.scalar(
        sa.update(EmailChange)
        .where(EmailChange.id == change.id, EmailChange.confirmed_at.is_(None))
        .values(confirmed_at=utcnow())
        .returning(EmailChange.id)
    )
    if confirmed is None:
        return False
    update = sa.update(User).where(*unchanged, User.deleted_at.is_(None)).values(email=address).returning(User.id)
    return db.session.scalar(update) is not None
