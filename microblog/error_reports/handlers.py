"""Report unexpected errors of requests and tasks by mail, without raising and without delaying the caller.

A report says which error occurred and where. It contains neither what a user typed nor any credential.
"""

from __future__ import annotations

import logging
import threading
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any

import sqlalchemy as sa
from celery.signals import task_failure, task_internal_error
from flask import Flask, got_request_exception, request, session

from microblog import logs
from microblog.accounts.models import id_in_session
from microblog.database import DatabaseUnavailable
from microblog.error_reports import throttle
from microblog.error_reports.models import ErrorReport
from microblog.error_reports.tasks import email_error_report
from microblog.extensions import db
from microblog.taskqueue import states
from microblog.taskqueue.interface import JobError, TaskChange, WorkerDied, task_changed
from microblog.taskqueue.launch import launch
from microblog.taskqueue.transitions import task_table
from microblog.validators import replace_unstorable

ROOT = Path(__file__).resolve().parent.parent.parent
LONGEST = 50_000  # characters of a traceback that are kept: its end

Facts = dict[str, Any]


def facts_of_error(error: BaseException, text: str = "") -> Facts:
    """The columns of a report that are about `error`; `text` is its traceback, for one that has lost its own."""
    own = "".join(traceback.format_exception(error)) if error.__traceback__ else text or repr(type(error))
    return {
        "exception": f"{type(error).__module__}.{type(error).__qualname__}"[:255],
        "place": _place(error.__traceback__)[:255],
        "traceback": replace_unstorable(logs.redact(own)[-LONGEST:]),
    }


def facts_of_request() -> Facts:
    """The columns that are about the request under way."""
    return {
        "method": request.method[:16],
        "path": replace_unstorable(logs.redact(request.path))[:255],  # without the query
        "request_id": logs.request_id(),
        "user_id": id_in_session(str(session.get("_user_id", ""))),
    }


def facts_of_task(task: Any, task_id: str) -> Facts:
    """The columns that are about a task that failed."""
    return {
        "task_id": task_id,
        "task_name": task.name,
        "request_id": task.request.get("request_id"),
        "user_id": task.claim.user_id if task.claim else None,
        "place": task.name,
    }


def facts_of_abandoned_task(task_id: str, row: Any) -> Facts:
    """The columns about a task that took its workers down with it; `row` has its name, worker, crashes and so on."""
    told = f"It was given up after {row.crashes} workers died under it, the last of them {row.worker}."
    headers = row.signature.get("options", {}).get("headers") or {}
    return facts_of_error(WorkerDied(), told) | {
        "task_id": task_id,
        "task_name": row.name,
        "request_id": headers.get("request_id"),
        "user_id": row.user_id,
        "place": row.name,
    }


def _place(frames: TracebackType | None) -> str:
    """The innermost line of our own; of whoever's, where none is ours. Empty for an error that was never raised."""
    summary = traceback.extract_tb(frames)
    ours = [frame for frame in summary if Path(frame.filename).is_relative_to(ROOT / "microblog")]
    for frame in (ours or summary)[-1:]:
        file = Path(frame.filename)
        name = file.relative_to(ROOT) if file.is_relative_to(ROOT) else file.name
        return f"{name}:{frame.lineno} in {frame.name}"
    return ""


logger = logging.getLogger(__name__)

AT_ONCE = 4  # reports under way in one process; while Redis or the database is away more would only pile up

# One that failed in any other way has crashed fewer, or it would not have been claimed; so have the steps behind it.
_GIVEN_UP = sa.select(
    task_table.c.name, task_table.c.user_id, task_table.c.worker, task_table.c.crashes, task_table.c.signature
).where(task_table.c.id == sa.bindparam("task_id"), task_table.c.crashes >= sa.bindparam("most"))
_room = threading.BoundedSemaphore(AT_ONCE)


def init_app(app: Flask) -> None:
    """Report the errors of the app's pages and of its tasks."""

    def hear_of_page(sender: Flask, exception: BaseException, **_: Any) -> None:
        try:
            _report_aside(app, facts_of_error(exception) | facts_of_request())
        except Exception:
            logger.exception("an error is not reported")

    def hear_of_task(sender: Any, task_id: str, exception: BaseException, einfo: Any = None, **_: Any) -> None:
        # One about the mail itself would be another about the next. A JobError is for the job's user.
        if isinstance(exception, JobError) or sender.name == email_error_report.name:
            return
        try:
            if sender.app is not app.extensions["celery"]:
                return
            known = facts_of_error(exception, str(getattr(einfo, "traceback", None) or ""))
            about = facts_of_task(sender, task_id)
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
            for row in sender.executor.execute(_GIVEN_UP, task_id=change.id, most=app.config["TASK_MAX_CRASHES"]):
                _report_aside(app, facts_of_abandoned_task(change.id, row))
        except Exception:
            logger.exception("an error is not reported")

    got_request_exception.connect(hear_of_page, app, weak=False)
    task_failure.connect(hear_of_task, weak=False)
    task_internal_error.connect(hear_of_task, weak=False)  # such as a claim that the database refuses
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
            except DatabaseUnavailable:
                throttle.take_back(kind, suppressed)
                logger.warning("the database is unavailable; %s is not reported", kind)
    except Exception:
        logger.exception("an error is not reported")
    finally:
        _room.release()


def _store(columns: Facts) -> None:
    report = ErrorReport(**columns)
    db.session.add(report)
    db.session.flush()
    launch(email_error_report.s(report.id))
    db.session.commit()
