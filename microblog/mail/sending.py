"""Render mails, and send each exactly once however often its task runs."""

from __future__ import annotations

import contextlib
import logging
import random
import re
import signal
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, NoReturn
from urllib.parse import urlsplit

import sqlalchemy as sa
from flask import current_app, render_template
from flask_babel import gettext as _
from flask_mail import Message, sanitize_address
from sqlalchemy.exc import IntegrityError

from microblog.clock import utcnow
from microblog.database import OUTAGE_PAUSE, DatabaseUnavailable
from microblog.extensions import db, mail
from microblog.jobs import job_details
from microblog.jobs.job_details import Details
from microblog.jobs.models import Job
from microblog.mail.models import SentMail
from microblog.smtp import Failure, Phase
from microblog.taskqueue import states
from microblog.taskqueue.errors import JobError
from microblog.taskqueue.worker import JobTask

logger = logging.getLogger(__name__)

INITIAL_BACKOFF = 2.0  # seconds before the second attempt; doubled for each one after it
MAX_BACKOFF = 40.0  # every job must end within a minute after an outage


class MailTask(JobTask):
    """Base class of tasks that send one mail.

    deliver() handles errors of the mail server, and retries until MAIL_RETRY_WINDOW is over. Celery's automatic retry
    is for the rendering before it, when the database or the storage is unavailable.
    """

    queue_name = "mail"
    max_retries = None  # of deliver(), which ends with MAIL_RETRY_WINDOW
    autoretry_for = (DatabaseUnavailable, OSError)
    dont_autoretry_for = (FileNotFoundError,)
    retry_backoff = 2
    retry_backoff_max = 60
    retry_kwargs = {"max_retries": 60}  # of autoretry_for

    def find_completed_result(self, task_id: str) -> dict[str, Any] | None:
        """Return the result of an earlier attempt whose mail the server has accepted, or None."""
        sent = db.session.get(SentMail, task_id)
        return {"message_id": sent.message_id} if sent else None


def deliver(task: MailTask, message: Message) -> dict[str, Any]:
    """Send `message` for `task`, unless that was done already; return its Message-ID.

    The Message-ID derives from the task's id, so that a mail client recognizes a mail that was sent twice; this is
    possible only between the server's response and the record of it. Raises JobError with the server's response,
    without the addresses in it, if the rejection is permanent, and celery.exceptions.Retry if it is temporary.
    """
    message_id = f"<{task.task_id}@{urlsplit(current_app.config['PUBLIC_URL']).hostname}>"
    if task.find_completed_result(task.task_id) is None:
        message.msgId = message_id
        db.session.rollback()  # a slow server must not keep a transaction open
        _send(task, message)
    return {"message_id": message_id}


def _send(task: MailTask, message: Message) -> None:
    """Send `message` and record that, both before the session with the server ends."""
    connection = mail.connect()
    try:
        with connection:
            _check_before_sending(task)
            with _stop_deferred():
                connection.send(message)
                _record(task.task_id, str(message.msgId))
    except OSError as error:  # includes smtplib.SMTPException
        failure = connection.failure(error)
    else:
        return
    # Outside of the except clause: the text of an exception being handled would be part of the stored traceback.
    _handle_failure(task, message, failure)


@contextlib.contextmanager
def _stop_deferred() -> Iterator[None]:
    """Defer SIGTERM until the block has ended: a stop of the worker must not lose the record of a mail.

    systemd, Heroku and shells send it to all processes of a worker, and it kills those that run tasks. A handler defers
    it for all threads of the process; in a pool of threads, the main thread waits for the tasks anyway.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    previous = signal.signal(signal.SIGTERM, lambda number, _frame: received.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
        if received:
            signal.raise_signal(signal.SIGTERM)


def _check_before_sending(task: MailTask) -> None:
    """Raise ClaimLost or Cancelled if this attempt was superseded or its job was cancelled.

    It is called after connecting, so that a slow server does not extend the time until the mail is sent. If the row
    cannot be read, the mail is not sent: raises DatabaseUnavailable.
    """
    task.check_current()
    task.update_state(
        state=states.PROGRESS,
        meta={"current": 0, "total": 1, "percent": 0, "message": _("Handing over to the mail server")},
    )


def _handle_failure(task: MailTask, message: Message, failure: Failure) -> NoReturn:
    """Fail or retry, as the rule of `failure` says. Log what operators have to correct."""
    reply = _without_addresses(failure.reply, message)
    if failure.rule.check:
        logger.error(
            "the mail server fails in the phase %s (%s); check %s; it is tried again until MAIL_RETRY_WINDOW is over",
            failure.phase,
            reply,
            failure.rule.check,
        )
    reason = _reason(failure, reply)
    if failure.rule.final:
        raise JobError(reason)
    _retry_later(task, reason)


def _reason(failure: Failure, reply: str) -> str:
    """Return the sentence for the user, with the `reply` if it is about the recipient or the mail."""
    reason: str
    if failure.rule.check and failure.phase == Phase.CONNECTION:
        reason = _("The mail server cannot be reached.")
    elif failure.rule.check:
        reason = _("Our mail server refuses mails at the moment.")
    elif failure.phase == Phase.RCPT:
        reason = _("The recipient's address was refused: %(answer)s", answer=reply)
    else:
        reason = _("The mail server refused: %(answer)s", answer=reply)
    return reason


def _without_addresses(reply: str, message: Message) -> str:
    """Return `reply` without the recipients of `message`, since a job may outlive an account."""
    addresses = {str(address) for to in message.send_to for address in (to, sanitize_address(to))}
    return re.sub("|".join(map(re.escape, addresses)), "…", reply, flags=re.IGNORECASE)


def _retry_later(task: MailTask, reason: str) -> NoReturn:
    """Retry after a growing pause with jitter. Raises JobError if the retry window would be over by then."""
    now = task.claim.now if task.claim else utcnow()
    started_at = task.claim.started_at if task.claim else now
    pause = min(INITIAL_BACKOFF * 2 ** min(task.attempt - 1, 10), MAX_BACKOFF) * random.uniform(0.75, 1.25)
    window = timedelta(seconds=current_app.config["MAIL_RETRY_WINDOW"])
    if now + timedelta(seconds=pause) > started_at + window:
        raise JobError(_("It was given up: %(reason)s", reason=reason))
    raise task.retry(exc=JobError(reason), countdown=pause)


def _record(task_id: str, message_id: str) -> None:
    """Record that the server has the mail. Waits for an unavailable database: otherwise a retry would send it again."""
    while True:
        try:
            db.session.merge(SentMail(id=task_id, message_id=message_id))
            db.session.commit()
        except IntegrityError:  # another attempt has just recorded it
            db.session.rollback()
            return
        except DatabaseUnavailable:
            db.session.rollback()
            logger.warning("the database is unavailable; mail %s is recorded as sent once it is available", message_id)
            time.sleep(OUTAGE_PAUSE)
        else:
            return


def render_email(template: str, *, to: str, subject: str, **context: Any) -> Message:
    """Render ``templates/mail/<template>.txt`` and ``.html`` with `context` as a mail, in the current locale."""
    return Message(
        subject=subject,
        recipients=[to],
        body=render_template(f"mail/{template}.txt", **context),
        html=render_template(f"mail/{template}.html", **context),
        extra_headers={"Auto-Submitted": "auto-generated"},
    )


@job_details.adds_job_details("mails")
def sent_mails_of_job(job: Job) -> list[Details]:
    """Return the mails of all steps of `job` that a server has accepted."""
    sent = sa.select(SentMail).where(SentMail.id.in_([step.id for step in job.steps])).order_by(SentMail.accepted_at)
    return [
        {"step": record.id, "message_id": record.message_id, "accepted_at": record.accepted_at}
        for record in db.session.scalars(sent)
    ]
