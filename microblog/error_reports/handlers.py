"""Report unexpected errors of requests and tasks by mail, without raising and without delaying the caller.

A report names the error and its location. It contains neither user input nor credentials.
"""

from __future__ import annotations

import logging
import threading
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any

import sqlalchemy as sa
from celery.exceptions import Ignore
from celery.signals import task_failure, task_internal_error
from flask import Flask, got_request_exception, request, session
from sqlalchemy.exc import SQLAlchemyError

from microblog import logs
from microblog.accounts.models import id_in_session
from microblog.database import LogDatabaseErrors
from microblog.error_reports import throttle
from microblog.error_reports.models import ErrorReport
from microblog.error_reports.tasks import email_error_report
from microblog.extensions import db
from microblog.taskqueue import states
from microblog.taskqueue.errors import JobError, WorkerDied
from microblog.taskqueue.interface import TaskChange, task_changed
from microblog.taskqueue.launch import launch
from microblog.taskqueue.transitions import task_table
from microblog.validators import replace_unstorable

logger = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parent.parent.parent
MAX_TRACEBACK = 50_000  # characters of a traceback that are stored: the last ones

# Concurrent reports of one process; if Redis or the database is unavailable, more would only pile up.
MAX_CONCURRENT_REPORTS = 4

Columns = dict[str, Any]


def error_columns(error: BaseException, text: str = "") -> Columns:
    """Return the columns that describe `error`; `text` is its traceback if the exception itself has none."""
    trace = "".join(traceback.format_exception(error)) if error.__traceback__ else text or repr(type(error))
    return {
        "exception": f"{type(error).__module__}.{type(error).__qualname__}"[:255],
        "place": _place(error.__traceback__)[:255],
        "traceback": replace_unstorable(logs.redact(trace)[-MAX_TRACEBACK:]),
    }


def request_columns() -> Columns:
    """Return the columns that describe the current request."""
    return {
        "method": request.method[:16],
        "path": replace_unstorable(logs.redact(request.path))[:255],  # without the query
        "request_id": logs.request_id(),
        "user_id": id_in_session(str(session.get("_user_id", ""))),
    }


def task_columns(task: Any, task_id: str) -> Columns:
    """Return the columns that describe a failed task."""
    return {
        "task_id": task_id,
        "task_name": task.name,
        "request_id": logs.request_id(),
        "user_id": task.claim.user_id if task.claim else None,
        "place": task.name,
    }


def abandoned_task_columns(task_id: str, row: Any) -> Columns:
    """Return the columns that describe a task given up after worker crashes; `row` is its row (see _GIVEN_UP)."""
    text = f"The task was given up after {row.crashes} worker crashes; the last worker was {row.worker}."
    headers = row.signature.get("options", {}).get("headers") or {}
    return error_columns(WorkerDied(), text) | {
        "task_id": task_id,
        "task_name": row.name,
        "request_id": headers.get("request_id"),
        "user_id": row.user_id,
        "place": row.name,
    }


def _place(frames: TracebackType | None) -> str:
    """Return the innermost line in this project, otherwise in any file; empty for an error that was never raised."""
    summary = traceback.extract_tb(frames)
    own = [frame for frame in summary if Path(frame.filename).is_relative_to(ROOT / "microblog")]
    for frame in (own or summary)[-1:]:
        file = Path(frame.filename)
        name = file.relative_to(ROOT) if file.is_relative_to(ROOT) else file.name
        return f"{name}:{frame.lineno} in {frame.name}"
    return ""


# A task that failed in another way has fewer crashes, or it would not have been claimed; so have its later steps.
_GIVEN_UP = sa.select(
    task_table.c.name, task_table.c.user_id, task_table.c.worker, task_table.c.crashes, task_table.c.signature
).where(task_table.c.id == sa.bindparam("task_id"), task_table.c.crashes >= sa.bindparam("crashes"))
_report_slots = threading.BoundedSemaphore(MAX_CONCURRENT_REPORTS)


def init_app(app: Flask) -> None:
    """Report the errors of the app's requests and of its tasks."""

    def report_request(sender: Flask, exception: BaseException, **_: Any) -> None:
        try:
            _report_in_thread(app, error_columns(exception) | request_columns())
        except Exception:
            logger.exception("the error of a request is not reported")

    def report_task(sender: Any, task_id: str, exception: BaseException, einfo: Any = None, **_: Any) -> None:
        # A report about a failed report mail would cause another one. A JobError is meant for the job's user. Ignore,
        # such as ClaimLost, is raised while a result is stored, and is no error.
        if isinstance(exception, (JobError, Ignore)) or sender.name == email_error_report.name:
            return
        try:
            if sender.app is not app.extensions["celery"]:
                return
            about_error = error_columns(exception, str(getattr(einfo, "traceback", None) or ""))
            about_task = task_columns(sender, task_id)
            _report_in_thread(app, about_task | about_error | {"place": about_error["place"] or about_task["place"]})
        except Exception:
            logger.exception("the error of task %s is not reported", task_id)

    def report_crashes(sender: Any, change: TaskChange) -> None:
        # Celery sends no signal if a task is given up because its worker process died.
        if change.state != states.FAILURE or change.name == email_error_report.name:
            return
        try:
            if sender is not app.extensions["celery"]:
                return
            for row in sender.executor.execute(_GIVEN_UP, task_id=change.id, crashes=app.config["TASK_MAX_CRASHES"]):
                _report_in_thread(app, abandoned_task_columns(change.id, row))
        except Exception:
            logger.exception("the crashes of task %s are not reported", change.id)

    got_request_exception.connect(report_request, app, weak=False)
    task_failure.connect(report_task, weak=False)
    task_internal_error.connect(report_task, weak=False)  # such as a claim that the database rejects
    task_changed.connect(report_crashes, weak=False)


def _report_in_thread(app: Flask, columns: Columns) -> None:
    """Report in a separate thread: the response must not wait for Redis or the database, which may have failed."""
    if not _report_slots.acquire(blocking=False):
        logger.warning("%s in %s is not reported: too many reports at once", columns["exception"], columns["place"])
        return
    threading.Thread(target=_report, args=(app, columns), daemon=True, name="error-report").start()


def _report(app: Flask, columns: Columns) -> None:
    """Store the report and launch its mail, unless an equal error was reported recently."""
    try:
        with app.app_context():  # a new session: the failed code may have left its session unfinished
            kind = ErrorReport(**columns).kind
            suppressed = throttle.acquire(kind)
            if suppressed is None:
                return
            with LogDatabaseErrors(logger, "%s is not reported", kind):
                try:
                    _store(columns | {"suppressed": suppressed})
                except SQLAlchemyError:
                    throttle.release(kind, suppressed)
                    raise
    except Exception:
        logger.exception("%s in %s is not reported", columns["exception"], columns["place"])
    finally:
        _report_slots.release()


def _store(columns: Columns) -> None:
    report = ErrorReport(**columns)
    db.session.add(report)
    db.session.flush()
    launch(email_error_report.s(report.id))
    db.session.commit()
