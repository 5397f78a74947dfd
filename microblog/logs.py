"""Logs on stderr: one line of JSON per event, with the ids of its request and task; in development, a short text."""

from __future__ import annotations

import logging
import logging.config
import os
import re
import sys
import textwrap
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from celery import current_app as current_celery
from celery import current_task
from celery.app import trace
from flask import Flask, Response, g, has_app_context, has_request_context, request
from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

logger = logging.getLogger(__name__)

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
# The `token` of a signed link, which grants access to anyone who has it. Other values are not tokens.
_TOKEN = re.compile(r"[\w.-]{40,}", re.ASCII)
MAX_INFO = 120  # characters of an INFO message in the text format
_PROBES = ("/healthz", "/readyz")

# Format strings of events, by those of the records: shorter, and without what a task returns.
_SHORT = {
    "request": "%(method)s %(path)s %(status)d in %(duration_ms).0f ms",
    trace.LOG_RECEIVED: "%(name)s %(id).8s… received",
    trace.LOG_SUCCESS: "%(name)s %(id).8s… done in %(runtime).1f s",
    trace.LOG_RETRY: "%(name)s %(id).8s… is retried: %(exc)s",
    trace.LOG_FAILURE: "%(name)s %(id).8s… failed: %(exc)s",
}
# Messages of libraries about normal operation, or about something that a developer cannot change.
_HIDDEN = re.compile(
    "alembic.runtime.migration: (Context impl |Will assume )"
    "|celery.beat: (beat: |Scheduler: Sending due task )"
    "|celery.worker.consumer.mingle: "
    # In a container, everything runs as root. The danger is pickle, which this project does not accept.
    "|py.warnings: .* SecurityWarning: You're running the worker with superuser privileges"
    # After an outage of Redis. The setting is False for a reason, and a message that is delivered again is dropped.
    "|py.warnings: .* CPendingDeprecationWarning: \\s*In Celery 5.1 we introduced an optional breaking change"
    "|celery.worker.consumer.consumer: Skipping prefetch count reduction"
    "|[a-z.]+: Couldn't ack %r, reason:%r"
)
_LEVEL_COLOURS = {"DEBUG": 2, "WARNING": 33, "ERROR": 31, "CRITICAL": 31}  # codes of ANSI terminals


def init_app(app: Flask) -> None:
    """Configure logging from the settings, give each request an id, and log one line for each request."""
    configure(app.config)
    app.before_request(_begin_request)
    app.after_request(_end_request)


def configure(config: Mapping[str, Any]) -> None:
    """Log records of LOG_LEVEL and above to stderr in the LOG_FORMAT."""
    text = config["LOG_FORMAT"] == "text"
    logging.captureWarnings(True)
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"json": {"()": Formatter}, "text": {"()": TextFormatter}},
            "filters": {"routine": {"()": RoutineFilter}},
            "handlers": {
                "stderr": {
                    "class": "logging.StreamHandler",
                    "formatter": config["LOG_FORMAT"],
                    "filters": ["routine"] if text else [],
                }
            },
            "root": {"level": config["LOG_LEVEL"], "handlers": ["stderr"]},
            "loggers": {
                # Its access log contains query strings; the log of this module does not.
                "werkzeug": {"level": "WARNING"},
                # It logs every connection that reads events, on the terminal of the command that shows them.
                "kombu.mixins": {"level": "WARNING"},
            },
        }
    )


def request_id() -> str | None:
    """Return the id of the current web request, or of the one that launched the current task, or None."""
    current_id: str | None = None
    if current_task:
        current_id = current_task.request.get("request_id")
    elif has_app_context():
        current_id = g.get("request_id")
    return current_id


def redact(text: str) -> str:
    """Return `text` without the token of the signed link that is being requested, if any."""
    if not has_request_context():
        return text
    for arguments in (request.view_args or {}, request.args):
        if token := _TOKEN.match(str(arguments.get("token", ""))):
            text = text.replace(token[0], "[token]")
    return text


class Formatter(JsonFormatter):
    """JSON formatter: the fields of every line, then those of the event."""

    def __init__(self) -> None:
        # Celery puts a task's arguments, result and traceback into `data`; the id is enough.
        super().__init__(rename_fields={"exc_info": "exception"}, reserved_attrs=[*RESERVED_ATTRS, "data"])

    def format(self, record: logging.LogRecord) -> str:
        """Return the line with the token redacted, since other loggers may add it (Flask logs the path of an error)."""
        return redact(super().format(record))

    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        created = datetime.fromtimestamp(record.created, UTC).replace(tzinfo=None)
        log_data |= {
            "timestamp": created.isoformat(timespec="milliseconds") + "Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "request_id": request_id(),
            "task_id": _task_id(record),
        }
        super().add_fields(log_data, record, message_dict)


class TextFormatter(logging.Formatter):
    """Formatter for people: one short line. Only an error has a traceback, in the lines that follow.

    On a terminal, the line begins with the time and has colours. In a pipe, its reader adds the time, and colours need
    FORCE_COLOR.
    """

    def __init__(self) -> None:
        super().__init__(datefmt="%H:%M:%S")
        self._on_terminal = sys.stderr.isatty()
        self._coloured = not os.environ.get("NO_COLOR") and bool(self._on_terminal or os.environ.get("FORCE_COLOR"))

    def format(self, record: logging.LogRecord) -> str:
        """Return the line with the token redacted, as in JSON."""
        is_info = record.levelno == logging.INFO
        template = _SHORT.get(str(record.msg))
        text = template % (record.args or vars(record)) if template else record.getMessage()
        text = textwrap.shorten(text, MAX_INFO, placeholder=" …") if is_info else " ".join(text.split())
        if record.exc_info and record.exc_info[1]:
            if record.levelno >= logging.ERROR:
                text += "\n" + self.formatException(record.exc_info)
            else:
                text += f" ({type(record.exc_info[1]).__name__}: {record.exc_info[1]})"
        if not is_info:
            text = f"{record.levelname.lower()}: {text}"
        if self._coloured and (colour := _LEVEL_COLOURS.get(record.levelname)):
            text = f"\033[{colour}m{text}\033[0m"
        return redact(f"{self.formatTime(record, self.datefmt)} {text}" if self._on_terminal else text)


class RoutineFilter(logging.Filter):
    """Filter of the text format: drops messages of normal operation between which a developer's actions would be lost.

    These are messages of libraries (``_HIDDEN``), the runs of periodic tasks, unless they fail, and static files.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if _HIDDEN.match(f"{record.name}: {record.msg}"):  # getMessage() would raise for wrong arguments
            return False
        if record.msg in (trace.LOG_RECEIVED, trace.LOG_SUCCESS) and isinstance(record.args, Mapping):
            return record.args["name"] not in current_celery.conf.beat_schedule
        if record.msg == "request":
            return "/static/" not in vars(record)["path"] or vars(record)["status"] >= HTTPStatus.BAD_REQUEST
        return True


def _task_id(record: logging.LogRecord) -> str | None:
    """Return the id of the current task; in a worker's main process, that of the task in Celery's log record."""
    current_id: str | None = None
    if current_task:
        current_id = current_task.request.id
    elif isinstance(data := getattr(record, "data", None), dict):
        current_id = data.get("id")
    return current_id


def _begin_request() -> None:
    header = request.headers.get("X-Request-ID", "")
    g.request_id = header if _REQUEST_ID.fullmatch(header) else uuid.uuid4().hex
    g.request_began = time.perf_counter()


def _end_request(response: Response) -> Response:
    response.headers["X-Request-ID"] = g.request_id
    logger.log(
        logging.DEBUG if request.path in _PROBES else logging.INFO,
        "request",
        extra={
            "method": request.method,
            "path": request.path,  # without the query string, which may contain a token
            "status": response.status_code,
            "duration_ms": round((time.perf_counter() - g.request_began) * 1000, 1),
        },
    )
    return response
