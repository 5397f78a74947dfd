"""The mail that reports an error."""

from __future__ import annotations

from flask import current_app
from flask_babel import gettext as _
from flask_mail import Message

from microblog.error_reports.models import ErrorReport
from microblog.mail.sending import render_email
from microblog.taskqueue.interface import JobError


def report_email(report: ErrorReport) -> Message:
    """Return the mail about `report` to all ``ADMINS``. Raises taskqueue.interface.JobError if there are none."""
    name = report.exception.rpartition(".")[2]
    subject = _("[Microblog] %(error)s in %(place)s", error=name, place=report.place)
    admins = current_app.config["ADMINS"]
    if not admins:
        raise JobError(_("There is nobody to tell: ADMINS is empty."))
    message = render_email("error_report", to=admins[0], subject=" ".join(subject.split()), report=report)
    message.recipients = list(admins)
    return message
