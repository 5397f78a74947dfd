"""Tasks that send mails about an account, and that delete accounts."""

from __future__ import annotations

from typing import Any, NoReturn

import sqlalchemy as sa
from celery import shared_task
from flask import current_app
from flask_babel import gettext as _
from flask_babel import lazy_gettext as _l

from microblog.accounts import deletion
from microblog.accounts.email_change import RETENTION
from microblog.accounts.emails import account_deleted_email, confirm_email, email_changed_email, password_reset_email
from microblog.accounts.models import EmailChange, User
from microblog.accounts.services import RESET_EMAIL_TASK, is_reset_pending
from microblog.database import DatabaseUnavailable, delete_older
from microblog.extensions import db
from microblog.i18n import progress_text
from microblog.jobs.services import cancel_jobs_of_user
from microblog.mail.sending import MailTask, deliver
from microblog.taskqueue.errors import JobError, UserError
from microblog.taskqueue.interface import Progress
from microblog.taskqueue.models import Task
from microblog.taskqueue.worker import JobTask

MAX_RETRY_DELAY = 30  # seconds between two attempts of a deletion that has to wait


@shared_task(name=RESET_EMAIL_TASK, bind=True, base=MailTask, title=_l("Mailing a link to set a new password"))
def email_password_reset(self: MailTask, user_id: int | None) -> dict[str, Any]:
    """Mail a user a link to set a new password. Do nothing if `user_id` is None or an earlier mail is pending."""
    user = User.with_id(user_id)
    if user is None or is_reset_pending(user.id, self.task_id):
        return {"message_id": None}
    return deliver(self, password_reset_email(user))


@shared_task(name="email_confirm_address", bind=True, base=MailTask, title=_l("Mailing a link to your new address"))
def email_confirm_address(self: MailTask, user_id: int, change_id: int) -> dict[str, Any]:
    """Mail a link to a user's new address, which confirms it."""
    change = db.session.get(EmailChange, change_id)
    if change is None or change.user_id != user_id or change.confirmed_at is not None:
        raise UserError(_("Another address was asked for since."))
    return deliver(self, confirm_email(change))


@shared_task(name="email_changed_address", bind=True, base=MailTask, title=_l("Telling the old address of a change"))
def email_changed_address(self: MailTask, change_id: int) -> dict[str, Any]:
    """Notify the old address that the user's address was changed."""
    change = db.session.get(EmailChange, change_id)
    if change is None:
        raise JobError(_("There is nothing to tell any more."))
    return deliver(self, email_changed_email(change))


@shared_task(name="email_account_deleted", bind=True, base=MailTask, title=_l("Confirming that an account is deleted"))
def email_account_deleted(self: MailTask, user_id: int) -> dict[str, Any]:
    """Notify a user that their account is closed; delete_account keeps the address until this task has ended."""
    user = db.session.get(User, user_id)
    if user is None or user.deleted_at is None:
        raise JobError(_("There is nothing to tell any more."))
    return deliver(self, account_deleted_email(user))


@shared_task(
    name="delete_account",
    bind=True,
    title=_l("Deleting an account"),
    autoretry_for=(DatabaseUnavailable, OSError),
    retry_backoff=2,
    retry_backoff_max=60,
    max_retries=None,  # the deletion must complete, however long a service is unavailable
)
def delete_account(self: JobTask, user_id: int, mail_id: str) -> dict[str, int]:
    """Delete the data of a closed account, then the account. Return the number of deleted rows.

    The task first cancels the user's jobs and waits until they have ended. It deletes the address only when the task
    `mail_id`, which mails the confirmation, has ended, successfully or not. It is safe to run it again.
    """
    if not deletion.is_closed(user_id):
        return {"deleted": 0}
    if not cancel_jobs_of_user(user_id):
        _wait(self, _("Jobs of the account are being cancelled."))
    total = deletion.count_user_data(user_id)
    db.session.rollback()  # progress is stored by the same connection
    with Progress(self, total, describe=_rows_deleted) as progress:
        for rows in deletion.delete_user_data(user_id):
            progress.advance(rows)
    if db.session.scalar(sa.select(Task.id).where(Task.id == mail_id, Task.unfinished)):
        _wait(self, _("The mail that confirms the deletion is on its way."))
    deletion.delete_user(user_id)
    return {"deleted": progress.current}


@shared_task(name="purge_email_changes", ignore_result=True, interval_setting="SWEEP_INTERVAL")
def purge_email_changes() -> None:
    """Delete expired changes of email addresses."""
    lifetime = current_app.config["ACCOUNT_LINK_LIFETIME"] + RETENTION.total_seconds()
    delete_older(db.session, EmailChange.requested_at, lifetime)


def _wait(task: JobTask, reason: str) -> NoReturn:
    """Retry the task after a growing delay, so that the worker is free meanwhile. Raises celery.exceptions.Retry."""
    db.session.rollback()
    raise task.retry(exc=JobError(reason), countdown=min(2 ** min(task.attempt - 1, 10), MAX_RETRY_DELAY))


def _rows_deleted(current: int, total: int | None) -> str:
    return progress_text("%(current)s of %(total)s entry", "%(current)s of %(total)s entries", current, total)
