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

logger = logging.getLogger(__name__)

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
# The `token` of a signed link, which grants access to anyone who has it. Other values are not tokens.
_TOKEN = re.compile(r"[\w.-]{40,}", re.ASCII)
_PROBES = ("/healthz", "/readyz")


def init_app(app: Flask) -> None:
    """Configure logging from the settings, give each request an id, and log one line for each request."""
    configure(app.config["LOG_LEVEL"])
    app.before_request(_begin_request)
    app.after_request(_end_request)


def configure(level: str) -> None:
    """Log records of `level` ("DEBUG", "INFO", …) and above to stderr as JSON."""
    logging.captureWarnings(True)
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"json": {"()": Formatter}},
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
            "root": {"level": level, "handlers": ["stderr"]},
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
