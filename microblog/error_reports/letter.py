"""The mail that tells of an error."""

from __future__ import annotations

from flask import current_app
from flask_babel import gettext as _
from flask_mail import Message

from microblog.error_reports.models import ErrorReport
from microblog.mail.letter import letter
from microblog.taskqueue.errors import JobError


def report_letter(report: ErrorReport) -> Message:
    """The mail about `report`, to all ``ADMINS``. Raises taskqueue.errors.JobError if there are none any more."""
    name = report.exception.rpartition(".")[2]
    subject = _("[Microblog] %(error)s in %(place)s", error=name, place=report.place)
    admins = current_app.config["ADMINS"]
    if not admins:
        raise JobError(_("There is nobody to tell: ADMINS is empty."))
    message = letter("error_report", to=admins[0], subject=" ".join(subject.split()), report=report)
    message.recipients = list(admins)
    return message
