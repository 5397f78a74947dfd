"""Asks the parts that Microblog is made of whether they are there, and never waits long for an answer."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import Any

import sqlalchemy as sa
from flask import Flask, current_app

from microblog.extensions import db, redis_client
from microblog.taskqueue.models import Task

logger = logging.getLogger(__name__)

DEADLINE = 3.0  # seconds until a part that has not answered counts as away
PING_TIMEOUT = 1.0  # seconds that a worker has to answer


class NoWorker(Exception):
    """No worker answered in time."""


def look_at_parts() -> dict[str, dict[str, Any]]:
    """What each part says: ``{"database": {"ok": True}, "redis": {"ok": False, "error": …}, …}``.

    All are asked at once, each in a thread of its own, since a driver may wait longer than we do. The
    sentence in `error` has no detail; that is in the log.
    """
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
    until = time.monotonic() + DEADLINE
    asked = {name: _ask(app, question) for name, question in QUESTIONS.items()}
    return {name: _outcome(name, answer, until) for name, answer in asked.items()}


def _ask(app: Flask, question: Callable[[], None]) -> Future[None]:
    answer: Future[None] = Future()

    def run() -> None:
        try:
            with app.app_context():
                question()
        except Exception as error:
            answer.set_exception(error)
        else:
            answer.set_result(None)

    Thread(target=run, name="readiness", daemon=True).start()
    return answer


def _outcome(name: str, answer: Future[None], until: float) -> dict[str, Any]:
    try:
        answer.result(timeout=max(0.0, until - time.monotonic()))
    except NoWorker:
        return {"ok": False, "error": "No worker answers."}
    except Exception as error:
        logger.warning("%s is not ready", name, exc_info=error)
        return {"ok": False, "error": "It does not answer as it should."}
    return {"ok": True}


def _database() -> None:
    with db.engine.connect() as connection:
        connection.execute(sa.select(Task.id).limit(1))  # so that a database without our tables is not ready


def _redis() -> None:
    redis_client.connection.ping()


def _worker() -> None:
    _redis()  # Celery tries for longer than this client where Redis is away
    control = current_app.extensions["celery"].control
    if not control.ping(timeout=PING_TIMEOUT, limit=1):  # returns with the first answer
        raise NoWorker


QUESTIONS: dict[str, Callable[[], None]] = {"database": _database, "redis": _redis, "worker": _worker}
