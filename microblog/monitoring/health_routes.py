"""/healthz and /readyz for process managers and load balancers, and /metrics for Prometheus.

The services are probed concurrently, each with a time limit.
"""

from __future__ import annotations

import hmac
import logging
from http import HTTPStatus
from typing import Any

from flask import Blueprint, abort, current_app, request
from flask.typing import ResponseReturnValue

from microblog.monitoring.metrics import Metrics
from microblog.monitoring.rules import RULES, Verdict
from microblog.monitoring.status import check_services

logger = logging.getLogger(__name__)

PING_TIMEOUT = 1.0  # seconds that a worker has to reply
UNAVAILABLE = {"ok": False, "error": "Unavailable; the log has the details."}
UNKNOWN = {"ok": False, "error": "Unknown without Redis."}

bp = Blueprint("monitoring", __name__)

NO_STORE = {"Cache-Control": "no-store"}


@bp.get("/healthz")
def health() -> ResponseReturnValue:
    """Return 200: this process responds. Other services are not probed, since a restart would not repair them."""
    return {"status": "ok"}, HTTPStatus.OK, NO_STORE


@bp.get("/readyz")
def ready() -> ResponseReturnValue:
    """Return the state of the database, Redis and the workers, with status 503 if any of them is unavailable.

    The response contains no details of the database and Redis, which are logged.
    """
    status = check_services(PING_TIMEOUT, current_app.extensions["readiness"])
    parts: dict[str, Any] = {
        rule.name: {"ok": True} if rule.is_known(status) else UNKNOWN for rule in RULES if rule.verdict is Verdict.DOWN
    }
    for rule, text in status.problems:
        if rule.name == "worker":
            parts["worker"] = {"ok": False, "error": text}  # which says everything
        elif rule.verdict is Verdict.DOWN:  # others, such as a clock that differs, do not stop the site
            logger.warning("/readyz returns 503: %s", text)
            parts[rule.name] = UNAVAILABLE
    down = status.verdict is Verdict.DOWN
    return parts, HTTPStatus.SERVICE_UNAVAILABLE if down else HTTPStatus.OK, NO_STORE


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
