"""Hears of errors that nobody expected, and has them reported: without raising, and without making anybody wait."""

from __future__ import annotations

import logging
import threading
from typing import Any

import sqlalchemy as sa
from celery.signals import task_failure
from flask import Flask, got_request_exception
from sqlalchemy.exc import DBAPIError

from microblog.error_reports import facts, throttle
from microblog.error_reports.facts import Facts
from microblog.error_reports.models import ErrorReport
from microblog.error_reports.tasks import email_error_report
from microblog.extensions import db
from microblog.taskqueue import states
from microblog.taskqueue.errors import JobError
from microblog.taskqueue.launch import launch
from microblog.taskqueue.rows import table
from microblog.taskqueue.signals import TaskChange, task_changed

logger = logging.getLogger(__name__)

AT_ONCE = 4  # reports under way in one process; while Redis or the database is away more would only pile up

# One that failed in any other way has crashed fewer, or it would not have been claimed; so have the steps behind it.
_GIVEN_UP = sa.select(table.c.name, table.c.user_id, table.c.worker, table.c.crashes, table.c.signature).where(
    table.c.id == sa.bindparam("task_id"), table.c.crashes >= sa.bindparam("most")
)
_room = threading.BoundedSemaphore(AT_ONCE)


def init_app(app: Flask) -> None:
    """Report the errors of the app's pages and of its tasks."""

    def hear_of_page(sender: Flask, exception: BaseException, **_: Any) -> None:
        try:
            _report_aside(app, facts.of_error(exception) | facts.of_request())
        except Exception:
            logger.exception("an error is not reported")

    def hear_of_task(sender: Any, task_id: str, exception: BaseException, einfo: Any = None, **_: Any) -> None:
        # One about the mail itself would be another about the next. A JobError is for the job's user.
        if isinstance(exception, JobError) or sender.name == email_error_report.name:
            return
        try:
            if sender.app is not app.extensions["celery"]:
                return
            known = facts.of_error(exception, str(getattr(einfo, "traceback", None) or ""))
            about = facts.of_task(sender, task_id)
            _report_aside(app, about | known | {"place": known["place"] or about["place"]})
        except Exception:
            logger.exception("an error is not reported")

    def hear_of_crashes(sender: Any, change: TaskChange) -> None:
        # Whoever gives up a task, whose process is gone, sends none of Celery's own signals.
        if change.state != states.FAILURE or change.name == email_error_report.name:
            return
        try:
            if sender is not app.extensions["celery"]:
                return
            for row in sender.rows.execute(_GIVEN_UP, task_id=change.id, most=app.config["TASK_MAX_CRASHES"]):
                _report_aside(app, facts.of_task_given_up(change.id, row))
        except Exception:
            logger.exception("an error is not reported")

    got_request_exception.connect(hear_of_page, app, weak=False)
    task_failure.connect(hear_of_task, weak=False)
    task_changed.connect(hear_of_crashes, weak=False)


def _report_aside(app: Flask, columns: Facts) -> None:
    """Report in a thread of its own: the answer must not wait for a Redis or a database that may be what is broken."""
    if not _room.acquire(blocking=False):
        logger.warning("%s in %s is not reported: too many others are being", columns["exception"], columns["place"])
        return
    threading.Thread(target=_report, args=(app, columns), daemon=True, name="error-report").start()


def _report(app: Flask, columns: Facts) -> None:
    """Store the report and launch its mail, unless there was one like it just now."""
    try:
        with app.app_context():  # and so with a session of its own: whatever failed may have left another half done
            kind = ErrorReport(**columns).kind
            suppressed = throttle.admit(kind)
            if suppressed is None:
                return
            try:
                _store(columns | {"suppressed": suppressed})
            except DBAPIError:
                throttle.take_back(kind, suppressed)
                logger.warning("the database is away; %s is not reported", kind)
    except Exception:
        logger.exception("an error is not reported")
    finally:
        _room.release()


def _store(columns: Facts) -> None:
    report = ErrorReport(**columns)
    db.session.add(report)
    db.session.flush()
    launch([email_error_report.s(report.id)])
    db.session.commit()
