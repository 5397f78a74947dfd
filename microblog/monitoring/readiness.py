"""Asks the parts that Microblog is made of whether they are there, and never waits long for an answer."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future
from threading import Lock, Thread
from typing import Any

import sqlalchemy as sa
from flask import Flask, current_app

from microblog.extensions import db, redis_client
from microblog.monitoring.ping import any_worker_answers
from microblog.taskqueue.models import Task

logger = logging.getLogger(__name__)

DEADLINE = 3.0  # seconds until a part that has not answered counts as away
PING_TIMEOUT = 1.0  # seconds that a worker has to answer


class NoWorker(Exception):
    """No worker answered in time."""


class Readiness:
    """Asks all parts at once, each in a thread of its own, since a driver may wait longer than we do.

    Whoever looks while a part is being asked waits for the same answer: however many look, however long a part
    hangs, there is never more than one thread for each.
    """

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._lock = Lock()
        self._asked: dict[str, Future[None]] = {}

    def look(self) -> dict[str, dict[str, Any]]:
        """What each part says: ``{"database": {"ok": True}, "redis": {"ok": False, "error": …}, …}``.

        The sentence in `error` has no detail; that is in the log.
        """
        until = time.monotonic() + DEADLINE
        with self._lock:
            asked = {name: self._ask(name, question) for name, question in QUESTIONS.items()}
        return {name: _outcome(name, answer, until) for name, answer in asked.items()}

    def _ask(self, name: str, question: Callable[[], None]) -> Future[None]:
        answer = self._asked.get(name)
        if answer is None or answer.done():
            answer = self._asked[name] = Future()
            Thread(target=self._run, args=(question, answer), name=f"ready-{name}", daemon=True).start()
        return answer

    def _run(self, question: Callable[[], None], answer: Future[None]) -> None:
        try:
            with self._app.app_context():
                question()
        except Exception as error:
            answer.set_exception(error)
        else:
            answer.set_result(None)


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
        connection.execute(sa.select(Task.id).limit(1))  # a database without our tables is not ready


def _redis() -> None:
    redis_client.connection.ping()


def _worker() -> None:
    _redis()  # where it is away, this client gives up sooner than Celery's
    if not any_worker_answers(current_app.extensions["celery"], PING_TIMEOUT):
        raise NoWorker


QUESTIONS: dict[str, Callable[[], None]] = {"database": _database, "redis": _redis, "worker": _worker}
