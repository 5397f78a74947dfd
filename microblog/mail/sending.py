"""Render mails, and send each exactly once however often its task runs."""

from __future__ import annotations

import logging
import random
import re
import smtplib
import time
from datetime import timedelta
from typing import Any, NoReturn
from urllib.parse import urlsplit

import sqlalchemy as sa
from flask import current_app, render_template
from flask_babel import gettext as _
from flask_mail import Message, sanitize_address
from sqlalchemy.exc import IntegrityError

from microblog.clock import utcnow
from microblog.database import DatabaseUnavailable
from microblog.extensions import db, mail
from microblog.jobs import job_details
from microblog.jobs.job_details import Details
from microblog.jobs.models import Job
from microblog.mail.models import SentMail
from microblog.taskqueue import states
from microblog.taskqueue.interface import JobError
from microblog.taskqueue.worker import JobTask

logger = logging.getLogger(__name__)

FIRST_PAUSE = 2.0  # seconds before the second attempt; doubled for each one after it
LONGEST_PAUSE = 40.0  # below the minute within which every job ends once all is healed
RECORD_PAUSE = 1.0


class MailTask(JobTask):
    """The base of tasks that send one mail: retried until MAIL_RETRY_WINDOW is over, by deliver().

    A database or a storage that is away before there is a mail to send is no reason to fail, either.
    """

    queue_name = "mail"
    max_retries = None
    autoretry_for = (DatabaseUnavailable, OSError)
    dont_autoretry_for = (FileNotFoundError,)
    retry_backoff = 2
    retry_backoff_max = 60
    retry_kwargs = {"max_retries": 60}

    def find_completed_result(self, task_id: str) -> dict[str, Any] | None:
        """Return the result of deliver() in an earlier attempt whose mail the server has accepted."""
        sent = db.session.get(SentMail, task_id)
        return {"message_id": sent.message_id} if sent else None


def deliver(task: MailTask, message: Message) -> dict[str, Any]:
    """Send `message` for `task`, unless that was done already; returns its Message-ID.

    The Message-ID derives from the task's id, so that even a mail sent twice, in the one instant in which that can
    happen, is one mail to whoever receives it. Raises JobError with the server's words, less the addresses in them, if
    it refuses for good, and celery.exceptions.Retry if it does for now.
    """
    task_id: str = task.request.id
    message_id = f"<{task_id}@{urlsplit(current_app.config['PUBLIC_URL']).hostname}>"
    if task.find_completed_result(task_id) is None:
        message.msgId = message_id
        db.session.rollback()  # a slow server must not keep a transaction open
        _send(task, message)
        _record(task_id, message_id)
    return {"message_id": message_id}


def _send(task: MailTask, message: Message) -> None:
    try:
        with mail.connect() as connection:
            _check_wanted(task)
            connection.send(message)
    except smtplib.SMTPRecipientsRefused as refused:
        said: tuple[int, bytes | str] = next(iter(refused.recipients.values()))
    except smtplib.SMTPAuthenticationError as error:
        logger.error("the mail server does not take MAIL_USERNAME and MAIL_PASSWORD: %s", error.smtp_code)
        _try_later(task, _("The mail server cannot be used right now."), error)
    except smtplib.SMTPResponseException as answer:
        said = (answer.smtp_code, answer.smtp_error)
    except (smtplib.SMTPException, OSError) as error:
        _try_later(task, _("The mail server cannot be reached."), error)
    else:
        return
    # Only here is there no exception being handled, whose own words would be part of the traceback that is kept.
    _refused(task, message, *said)


def _check_wanted(task: MailTask) -> None:
    """Raise ClaimLost or Cancelled if this attempt no longer counts or its job was cancelled.

    The server is connected by now, so that what follows is short, however slow it was to answer. If the row cannot be
    asked, the mail is not sent: raises DatabaseUnavailable.
    """
    task.check_current()
    task.update_state(
        state=states.PROGRESS,
        meta={"current": 0, "total": 1, "percent": 0, "message": _("Handing over to the mail server")},
    )


def _refused(task: MailTask, message: Message, code: int, words: bytes | str) -> NoReturn:
    """End or retry with what the server said; not with whom it spoke of, since a job may outlive an account."""
    text = words.decode("utf-8", "replace") if isinstance(words, bytes) else words
    spelled = {str(spelling) for to in message.send_to for spelling in (to, sanitize_address(to))}
    reply = f"{code} " + re.sub("|".join(map(re.escape, spelled)), "…", text, flags=re.IGNORECASE)
    answer = _("The mail server refused: %(answer)s", answer=reply)
    if code >= 500:
        raise JobError(answer)
    _try_later(task, answer)


def _try_later(task: MailTask, reason: str, error: Exception | None = None) -> NoReturn:
    """Retry after a pause that grows and is never quite the same, while the window is open."""
    started_at = task.claim.started_at if task.claim else utcnow()
    attempt = task.attempt or task.request.retries + 1
    pause = min(FIRST_PAUSE * 2 ** min(attempt - 1, 10), LONGEST_PAUSE) * random.uniform(0.75, 1.25)
    window = timedelta(seconds=current_app.config["MAIL_RETRY_WINDOW"])
    if utcnow() + timedelta(seconds=pause) > started_at + window:
        raise JobError(_("It was given up: %(reason)s", reason=reason)) from error
    raise task.retry(exc=JobError(reason), countdown=pause)


def _record(task_id: str, message_id: str) -> None:
    """Note that the server has the mail, however long the database is away: forgetting it would send it again."""
    while True:
        try:
            db.session.merge(SentMail(id=task_id, message_id=message_id))
            db.session.commit()
        except IntegrityError:  # another attempt has noted it in this very moment
            db.session.rollback()
            return
        except DatabaseUnavailable:
            db.session.rollback()
            logger.warning("the database is unavailable; %s is recorded as sent once it is back", message_id)
            time.sleep(RECORD_PAUSE)
        else:
            return


def render_email(template: str, *, to: str, subject: str, **context: Any) -> Message:
    """The mail that ``templates/mail/<template>.txt`` and ``.html`` make of `context`, in the language in force."""
    return Message(
        subject=subject,
        recipients=[to],
        body=render_template(f"mail/{template}.txt", **context),
        html=render_template(f"mail/{template}.html", **context),
        extra_headers={"Auto-Submitted": "auto-generated"},
    )


@job_details.adds_job_details("mails")
def sent_mails_of(job: Job) -> list[Details]:
    """The mails that a server accepted from any step of `job`."""
    sent = sa.select(SentMail).where(SentMail.id.in_([step.id for step in job.steps])).order_by(SentMail.accepted_at)
    return [
        {"step": record.id, "message_id": record.message_id, "accepted_at": record.accepted_at}
        for record in db.session.scalars(sent)
    ]
