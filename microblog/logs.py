"""Structured logs: one line of JSON on stderr per event, with the ids of its request and task."""

from __future__ import annotations

import logging
import logging.config
import re
import time
import uuid
from datetime import UTC, datetime
from typing import Any

from celery import current_task
from flask import Flask, Response, g, has_app_context, has_request_context, request
from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

_log = logging.getLogger(__name__)

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
# What a signed link has as its `token`: whoever has it may use it. Whatever else is there is none.
_TOKEN = re.compile(r"[\w.-]{40,}", re.ASCII)
_PROBES = ("/healthz", "/readyz")


def init_app(app: Flask) -> None:
    """Log as the settings say, name each request, and write one line about it."""
    configure(app.config["LOG_LEVEL"])
    app.before_request(_begin_request)
    app.after_request(_end_request)


def configure(level: str) -> None:
    """Send everything from `level` ("DEBUG", "INFO", …) upwards to stderr, in this module's form."""
    logging.captureWarnings(True)
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"json": {"()": Formatter}},
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
            "root": {"level": level, "handlers": ["stderr"]},
            "loggers": {
                # Its own access lines have the query string in them; ours do not.
                "werkzeug": {"level": "WARNING"},
                # It tells of each connection by which events are read, on the terminal of whoever reads them.
                "kombu.mixins": {"level": "WARNING"},
            },
        }
    )


def request_id() -> str | None:
    """The id of the web request being answered, or of the one that launched the task being run; else None."""
    known: str | None = None
    if current_task:
        known = current_task.request.get("request_id")
    elif has_app_context():
        known = g.get("request_id")
    return known


def redact(text: str) -> str:
    """`text` without the token of the signed link that is being asked for, if the request is for one."""
    if not has_request_context():
        return text
    for arguments in (request.view_args or {}, request.args):
        if token := _TOKEN.match(str(arguments.get("token", ""))):
            text = text.replace(token[0], "[token]")
    return text


class Formatter(JsonFormatter):
    """The fields of every line, then whatever the event adds."""

    def __init__(self) -> None:
        # Celery repeats a task's arguments, result and traceback in `data`: the id is enough.
        super().__init__(rename_fields={"exc_info": "exception"}, reserved_attrs=[*RESERVED_ATTRS, "data"])

    def format(self, record: logging.LogRecord) -> str:
        """The line, redacted, whoever wrote it: Flask names the path of an error."""
        return redact(super().format(record))

    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        moment = datetime.fromtimestamp(record.created, UTC).replace(tzinfo=None)
        log_data |= {
            "timestamp": moment.isoformat(timespec="milliseconds") + "Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "request_id": request_id(),
            "task_id": _task_id(record),
        }
        super().add_fields(log_data, record, message_dict)


def _task_id(record: logging.LogRecord) -> str | None:
    """The task that is being run; in a worker's main process, the one that Celery is talking about."""
    known: str | None = None
    if current_task:
        known = current_task.request.id
    elif isinstance(data := getattr(record, "data", None), dict):
        known = data.get("id")
    return known


def _begin_request() -> None:
    given = request.headers.get("X-Request-ID", "")
    g.request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
    g.request_began = time.perf_counter()


def _end_request(response: Response) -> Response:
    response.headers["X-Request-ID"] = g.request_id
    _log.log(
        logging.DEBUG if request.path in _PROBES else logging.INFO,
        "request",
        extra={
            "method": request.method,
            "path": request.path,  # without the query string: it may hold a signed link
            "status": response.status_code,
            "duration_ms": round((time.perf_counter() - g.request_began) * 1000, 1),
        },
    )
    return response
