"""Asks the parts that Microblog is made of whether they are there, and never waits long for an answer."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import sqlalchemy as sa
from flask import Flask, current_app

from microblog.extensions import db, redis_client
from microblog.monitoring.parallel import Parallel
from microblog.monitoring.ping import any_worker_answers
from microblog.taskqueue.models import Task

logger = logging.getLogger(__name__)

DEADLINE = 3.0  # seconds until a part that has not answered counts as away
PING_TIMEOUT = 1.0  # seconds that a worker has to answer


class NoWorker(Exception):
    """No worker answered in time."""


class Readiness:
    """Asks all parts at once, and waits for none of them for long."""

    def __init__(self, app: Flask) -> None:
        self._parts = Parallel(app)

    def look(self) -> dict[str, dict[str, Any]]:
        """What each part says: ``{"database": {"ok": True}, "redis": {"ok": False, "error": …}, …}``.

        The sentence in `error` has no detail; that is in the log.
        """
        return {name: _outcome(name, answer) for name, answer in self._parts.ask(QUESTIONS, DEADLINE).items()}


def _outcome(name: str, answer: Future[None]) -> dict[str, Any]:
    try:
        answer.result(timeout=0)
    except NoWorker:
        return {"ok": False, "error": "No worker answers."}
    except Exception as error:
        logger.warning("%s is not ready", name, exc_info=error)
        return {"ok": False, "error": "It does not answer as it should."}
    return {"ok": True}


def _database() -> None:
    with db.engine.connect() as connection:
        connection.execute(sa.select(Task.id).limit(1))  # a database without our tables is not ready


def _redis() -> None:
    redis_client.connection.ping()


def _worker() -> None:
    _redis()  # where it is away, this client gives up sooner than Celery's
    if not any_worker_answers(current_app.extensions["celery"], PING_TIMEOUT):
        raise NoWorker


QUESTIONS: dict[str, Callable[[], None]] = {"database": _database, "redis": _redis, "worker": _worker}
