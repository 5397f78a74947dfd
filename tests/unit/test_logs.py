"""The text format of logs: a short line per event, without messages of normal operation."""

from __future__ import annotations

import logging
import sys
from typing import Any

import pytest
from celery.app import trace
from flask import Flask

from microblog import logs

TASK = {"id": "3f2a1b4c-0000-4000-8000-000000000000", "name": "export_posts", "return_value": "{…}", "runtime": 1.234}
PERIODIC = TASK | {"name": "roll_up"}
REQUEST: dict[str, Any] = {"method": "GET", "path": "/explore", "status": 200, "duration_ms": 12.6}
ROOT_WARNING = (
    "/x/celery/platforms.py:893: SecurityWarning: You're running the worker with superuser privileges: this is\n"
    "absolutely not recommended!"
)

ACK_WARNING = (
    "/x/celery/worker/consumer/consumer.py:427: CPendingDeprecationWarning: \n"
    "In Celery 5.1 we introduced an optional breaking change which\n"
    "on connection loss cancels all currently executed tasks with late acknowledgement enabled.\n"
)


def record(message: str, *args: Any, level: int = logging.INFO, name: str = "x", **fields: Any) -> logging.LogRecord:
    return logging.makeLogRecord(
        {"name": name, "levelno": level, "levelname": logging.getLevelName(level), "msg": message, "args": args}
        | fields
    )


def task_record(template: str, context: dict[str, Any], level: int = logging.INFO) -> logging.LogRecord:
    return logging.LogRecord("celery.app.trace", level, "", 0, template, (context,), None)


def raised() -> tuple[Any, Any, Any]:
    try:
        raise ValueError("no such thing")
    except ValueError:
        return sys.exc_info()


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (record("request", **REQUEST), "GET /explore 200 in 13 ms"),
        (task_record(trace.LOG_RECEIVED, TASK), "export_posts 3f2a1b4c… received"),
        (task_record(trace.LOG_SUCCESS, TASK), "export_posts 3f2a1b4c… done in 1.2 s"),
        (task_record(trace.LOG_RETRY, TASK | {"exc": "OSError()"}), "export_posts 3f2a1b4c… is retried: OSError()"),
        (record("published %s: %s", "a", "lost"), "published a: lost"),
        (record("word " * 30), "word " * 23 + "…"),
        (record("two\n lines", level=logging.WARNING), "warning: two lines"),
        (
            record("Redis is unavailable", level=logging.WARNING, exc_info=raised()),
            "warning: Redis is unavailable (ValueError: no such thing)",
        ),
    ],
)
def test_event_is_one_short_line(event: logging.LogRecord, text: str) -> None:
    assert logs.TextFormatter().format(event) == text


def test_error_has_traceback() -> None:
    context = TASK | {"exc": "ValueError('no such thing')"}
    event = task_record(trace.LOG_FAILURE, context, level=logging.ERROR)
    event.exc_info = raised()

    first, *others = logs.TextFormatter().format(event).splitlines()

    assert first == "error: export_posts 3f2a1b4c… failed: ValueError('no such thing')"
    assert others[0].startswith("Traceback")
    assert others[-1] == "ValueError: no such thing"


@pytest.mark.parametrize(
    ("variables", "coloured"),
    [({}, False), ({"FORCE_COLOR": "1"}, True), ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False)],
)
def test_colours_in_pipe_need_force_color(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], coloured: bool
) -> None:
    for name in ("FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    text = logs.TextFormatter().format(record("broken", level=logging.ERROR))

    assert text == ("\033[31merror: broken\033[0m" if coloured else "error: broken")


def test_token_is_redacted(app: Flask) -> None:
    token = 43 * "a"
    with app.test_request_context(f"/auth/reset_password/{token}"):
        text = logs.TextFormatter().format(record("request", **REQUEST | {"path": f"/auth/reset_password/{token}"}))

    assert "[token]" in text
    assert token not in text


@pytest.mark.parametrize(
    ("event", "passes"),
    [
        (task_record(trace.LOG_SUCCESS, TASK), True),
        (task_record(trace.LOG_SUCCESS, PERIODIC), False),
        (task_record(trace.LOG_RECEIVED, PERIODIC), False),
        (task_record(trace.LOG_FAILURE, PERIODIC, level=logging.ERROR), True),
        (record("request", **REQUEST), True),
        (record("request", **REQUEST | {"path": "/static/style.css"}), False),
        (record("request", **REQUEST | {"path": "/static/style.css", "status": 404}), True),
        (record("Context impl %s.", "SQLiteImpl", name="alembic.runtime.migration"), False),
        (record("Running upgrade %s", "a", name="alembic.runtime.migration"), True),
        (record("Scheduler: Sending due task %s (%s)", "a", "b", name="celery.beat"), False),
        (record(ROOT_WARNING, level=logging.WARNING, name="py.warnings"), False),
        (record(ACK_WARNING, level=logging.WARNING, name="py.warnings"), False),
        (record("Couldn't ack %r, reason:%r", 1, 2, level=logging.CRITICAL, name="celery.worker.request"), False),
        (record("x.py:1: DeprecationWarning: old", level=logging.WARNING, name="py.warnings"), True),
    ],
)
def test_routine_filter(app: Flask, event: logging.LogRecord, passes: bool) -> None:
    assert logs.RoutineFilter().filter(event) is passes


@pytest.mark.parametrize(("chosen", "formatter"), [("json", logs.Formatter), ("text", logs.TextFormatter)])
def test_setting_chooses_format(app: Flask, chosen: str, formatter: type[logging.Formatter]) -> None:
    logs.configure({"LOG_LEVEL": "INFO", "LOG_FORMAT": chosen})
    try:
        handlers = {type(handler.formatter): handler for handler in logging.getLogger().handlers}

        assert bool(handlers[formatter].filters) is (chosen == "text")
    finally:
        logs.configure(app.config)
