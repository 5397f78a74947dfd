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
from flask import Blueprint, abort, current_app, request
from flask.typing import ResponseReturnValue

from microblog.database import check_writable
from microblog.extensions import db, redis_client
from microblog.monitoring.metrics import Metrics
from microblog.monitoring.status import ConcurrentProbes
from microblog.monitoring.worker_rpc import broadcast_and_collect
from microblog.taskqueue.models import Task

logger = logging.getLogger(__name__)

DEADLINE = 3.0  # seconds after which a service that has not responded counts as unavailable
PING_TIMEOUT = 1.0  # seconds that a worker has to reply


class NoWorker(Exception):
    """Raised if no worker replies in time."""


def _outcome(name: str, future: Future[None]) -> dict[str, Any]:
    """Return ``{"ok": True}`` or ``{"ok": False, "error": …}``: a message without details, which are logged."""
    try:
        future.result(timeout=0)
    except NoWorker:
        return {"ok": False, "error": "No worker replied."}
    except Exception as error:
        logger.warning("the probe of the %s failed; /readyz returns 503", name, exc_info=error)
        return {"ok": False, "error": "Unavailable; the log has the details."}
    return {"ok": True}


def _database() -> None:
    with db.engine.connect() as connection:
        connection.execute(sa.select(Task.id).limit(1))  # a database without the tables is not ready
    check_writable(db.engine)


def _redis() -> None:
    redis_client.connection.ping()


def _worker() -> None:
    if not broadcast_and_collect({"ping": {}}, PING_TIMEOUT, expected=None):
        raise NoWorker


PROBES: dict[str, Callable[[], None]] = {"database": _database, "redis": _redis, "worker": _worker}


bp = Blueprint("monitoring", __name__)

NO_STORE = {"Cache-Control": "no-store"}


@bp.get("/healthz")
def health() -> ResponseReturnValue:
    """Return 200: this process responds. Other services are not probed, since a restart would not repair them."""
    return {"status": "ok"}, HTTPStatus.OK, NO_STORE


@bp.get("/readyz")
def ready() -> ResponseReturnValue:
    """Return the state of the database, Redis and the workers, with status 503 if any of them is unavailable."""
    probes: ConcurrentProbes = current_app.extensions["readiness"]
    parts = {name: _outcome(name, future) for name, future in probes.run(PROBES, DEADLINE).items()}
    all_ready = all(part["ok"] for part in parts.values())
    return parts, HTTPStatus.OK if all_ready else HTTPStatus.SERVICE_UNAVAILABLE, NO_STORE


@bp.get("/metrics")
def metrics() -> ResponseReturnValue:
    """Return the metrics to a caller that sends METRICS_TOKEN; 404 if that setting is not set."""
    token: str | None = current_app.config["METRICS_TOKEN"]
    if token is None:
        abort(HTTPStatus.NOT_FOUND)
    sent = request.authorization.token if request.authorization else None
    if not hmac.compare_digest((sent or "").encode(), token.encode()):
        return "A valid token is required.\n", HTTPStatus.UNAUTHORIZED, NO_STORE | {"WWW-Authenticate": "Bearer"}
    collector: Metrics = current_app.extensions["metrics"]
    text, content_type = collector.expose(request.headers.get("Accept", ""))
    return text, HTTPStatus.OK, NO_STORE | {"Content-Type": content_type}
