"""Tasks that mail reports, and that delete old ones."""

from __future__ import annotations

from typing import Any

from celery import shared_task
from flask import current_app
from flask_babel import gettext as _
from flask_babel import lazy_gettext as _l
from flask_mail import Message
from redis.exceptions import RedisError

from microblog.database import delete_older
from microblog.error_reports import throttle
from microblog.error_reports.models import ErrorReport
from microblog.extensions import db
from microblog.mail.sending import MailTask, deliver, render_email
from microblog.taskqueue.errors import JobError


@shared_task(
    name="email_error_report",
    bind=True,
    base=MailTask,
    title=_l("Reporting an error"),
    autoretry_for=(*MailTask.autoretry_for, RedisError),
)
def email_error_report(self: MailTask, report_id: int) -> dict[str, Any]:
    """Mail an error report to ``ADMINS``. If an equal error was mailed recently, the next mail counts this one."""
    report = db.session.get(ErrorReport, report_id)
    if report is None:
        raise JobError(_("The report is no longer there."))
    if not throttle.acquire_mail(report.kind, str(report.id), report.suppressed):
        return {"message_id": None}
    return deliver(self, report_email(report))


@shared_task(name="purge_error_reports", ignore_result=True, interval_setting="SWEEP_INTERVAL")
def purge_error_reports() -> None:
    """Delete reports that are older than ``ERROR_REPORT_LIFETIME`` seconds."""
    delete_older(db.session, ErrorReport.created_at, current_app.config["ERROR_REPORT_LIFETIME"])


def report_email(report: ErrorReport) -> Message:
    """Return the mail about `report` to all ``ADMINS``. Raises taskqueue.errors.JobError if there are none."""
    name = report.exception.rpartition(".")[2]
    subject = _("[Microblog] %(error)s in %(place)s", error=name, place=report.place)
    admins = current_app.config["ADMINS"]
    if not admins:
        raise JobError(_("There is nobody to tell: ADMINS is empty."))
    message = render_email("error_report", to=admins[0], subject=" ".join(subject.split()), report=report)
    message.recipients = list(admins)
    return message
