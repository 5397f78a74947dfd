"""Change of the email address: requested, confirmed by a link to the new address, reported to the old one."""

from __future__ import annotations

from datetime import datetime, timedelta

import sqlalchemy as sa
from flask import current_app
from flask_babel import gettext as _
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, mapped_column, relationship

from microblog.accounts.models import MAX_EMAIL, User
from microblog.clock import utcnow
from microblog.database import delete_in_batches
from microblog.extensions import Model, db
from microblog.taskqueue.launch import launch_task

KEPT_FOR = timedelta(days=7)  # after its link has expired: for the mail to the old address to be tried again by hand
BATCH = 500  # rows deleted in one transaction


class EmailTaken(Exception):
    """Another user has taken the address in the meantime."""


class EmailChange(Model):
    """That a user wants mails to go to another address; the messages of its mails carry its id."""

    __tablename__ = "email_change"
    __table_args__ = {"sqlite_autoincrement": True}

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(sa.ForeignKey("user.id", ondelete="CASCADE"), index=True)
    old_address: Mapped[str] = mapped_column(sa.String(MAX_EMAIL))
    new_address: Mapped[str] = mapped_column(sa.String(MAX_EMAIL))
    requested_at: Mapped[datetime] = mapped_column(default=utcnow, index=True)
    confirmed_at: Mapped[datetime | None]

    user: Mapped[User] = relationship(lazy="joined", innerjoin=True)

    def __repr__(self) -> str:
        return f"<EmailChange {self.id} of user {self.user_id}>"


def request_email_change(user: User, address: str) -> None:
    """Have a link mailed to `address` that makes it the address of `user`, in the caller's transaction.

    Links of earlier requests die. Raises AlreadyRunning while a mail of an earlier one is on its way.
    """
    db.session.execute(sa.delete(EmailChange).where(EmailChange.user_id == user.id, EmailChange.confirmed_at.is_(None)))
    change = EmailChange(user=user, old_address=user.email, new_address=address)
    db.session.add(change)
    db.session.flush()
    user.launch_task("email_confirm_address", _("Mailing a link to your new address"), change.id)


def pending_email_change(user: User) -> EmailChange | None:
    """The change that `user` has yet to confirm, if its link may still work."""
    since = utcnow() - timedelta(seconds=current_app.config["ACCOUNT_LINK_LIFETIME"])
    mine = sa.select(EmailChange).where(EmailChange.user_id == user.id, EmailChange.requested_at > since)
    return db.session.scalar(mine.where(EmailChange.confirmed_at.is_(None)).order_by(EmailChange.id.desc()).limit(1))


def confirm_email_change(change: EmailChange) -> bool:
    """Let the new address be the user's, have the old one told, and commit that; raises EmailTaken.

    False, and nothing done, if since `change` and its user were read it was confirmed or is gone, or the user has
    another password or address, or the account is closed.

    The mail is no job of the user's: whoever has taken the account over must not be able to cancel it.
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


def purge_expired_changes() -> int:
    """Forget changes whose time is long over; returns how many."""
    lifetime = timedelta(seconds=current_app.config["ACCOUNT_LINK_LIFETIME"])
    old = sa.select(EmailChange.id).where(EmailChange.requested_at < utcnow() - lifetime - KEPT_FOR).limit(BATCH)
    return delete_in_batches(db.session, sa.delete(EmailChange).where(EmailChange.id.in_(old)))


def _confirm_once(change: EmailChange) -> bool:
    """Both rows are changed only as they were read: whoever else is about to change them waits, and finds it done."""
    user, address = change.user, change.new_address
    read = (User.id == user.id, User.password_hash == user.password_hash, User.email == user.email)
    confirmed = db.session.scalar(
        sa.update(EmailChange)
        .where(EmailChange.id == change.id, EmailChange.confirmed_at.is_(None))
        .values(confirmed_at=utcnow())
        .returning(EmailChange.id)
    )
    if confirmed is None:
        return False
    moved = sa.update(User).where(*read, User.deleted_at.is_(None)).values(email=address).returning(User.id)
    return db.session.scalar(moved) is not None
