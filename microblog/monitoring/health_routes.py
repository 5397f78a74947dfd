"""/healthz and /readyz for process managers and load balancers, and /metrics for Prometheus.

The probes run concurrently, each with a time limit.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Callable
from concurrent.futures import Future
from http import HTTPStatus
from typing import Any

import sqlalchemy as sa
from flask import Blueprint, Flask, abort, current_app, request
from flask.typing import ResponseReturnValue

from microblog.extensions import db, redis_client
from microblog.monitoring.metrics import Metrics
from microblog.monitoring.status import ConcurrentProbes
from microblog.monitoring.worker_rpc import any_worker_answers
from microblog.taskqueue.interface import celery_app
from microblog.taskqueue.models import Task

logger = logging.getLogger(__name__)

DEADLINE = 3.0  # seconds until a part that has not answered counts as away
PING_TIMEOUT = 1.0  # seconds that a worker has to answer


class NoWorker(Exception):
    """No worker answered in time."""


class Readiness:
    """Asks all parts at once, and waits for none of them for long."""

    def __init__(self, app: Flask) -> None:
        self._parts = ConcurrentProbes(app)

    def look(self) -> dict[str, dict[str, Any]]:
        """Return the state of each part: ``{"database": {"ok": True}, "redis": {"ok": False, "error": …}, …}``.

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
    if not any_worker_answers(celery_app(), PING_TIMEOUT):
        raise NoWorker


QUESTIONS: dict[str, Callable[[], None]] = {"database": _database, "redis": _redis, "worker": _worker}


bp = Blueprint("monitoring", __name__)

NO_STORE = {"Cache-Control": "no-store"}


@bp.get("/healthz")
def health() -> ResponseReturnValue:
    """Return whether this process answers. It asks nobody else: restarting it would not bring them back."""
    return {"status": "ok"}, HTTPStatus.OK, NO_STORE


@bp.get("/readyz")
def ready() -> ResponseReturnValue:
    """Return whether all is there that a reader needs: the database, Redis, a worker. 503 if any of them is not."""
    readiness: Readiness = current_app.extensions["readiness"]
    parts = readiness.look()
    all_there = all(part["ok"] for part in parts.values())
    return parts, HTTPStatus.OK if all_there else HTTPStatus.SERVICE_UNAVAILABLE, NO_STORE


@bp.get("/metrics")
def metrics() -> ResponseReturnValue:
    """Return the metrics to a caller who presents METRICS_TOKEN; without that setting the page does not exist."""
    token: str | None = current_app.config["METRICS_TOKEN"]
    if token is None:
        abort(HTTPStatus.NOT_FOUND)
    shown = request.authorization.token if request.authorization else None
    if not hmac.compare_digest((shown or "").encode(), token.encode()):
        return "A valid token is required.\n", HTTPStatus.UNAUTHORIZED, NO_STORE | {"WWW-Authenticate": "Bearer"}
    exposed: Metrics = current_app.extensions["metrics"]
    text, content_type = exposed.expose(request.headers.get("Accept", ""))
    return text, HTTPStatus.OK, NO_STORE | {"Content-Type": content_type}
