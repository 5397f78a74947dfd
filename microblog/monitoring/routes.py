"""/healthz and /readyz, for whatever keeps the processes running and sends readers to them; /metrics for Prometheus."""

from __future__ import annotations

import hmac
from http import HTTPStatus

from flask import Blueprint, abort, current_app, request
from flask.typing import ResponseReturnValue

from microblog.monitoring.metrics import Metrics
from microblog.monitoring.readiness import Readiness

bp = Blueprint("monitoring", __name__)

NO_STORE = {"Cache-Control": "no-store"}


@bp.get("/healthz")
def health() -> ResponseReturnValue:
    """Whether this process answers. It asks nobody else: restarting it would not bring them back."""
    return {"status": "ok"}, HTTPStatus.OK, NO_STORE


@bp.get("/readyz")
def ready() -> ResponseReturnValue:
    """Whether all is there that a reader needs: the database, Redis, a worker. 503 if any of them is not."""
    readiness: Readiness = current_app.extensions["readiness"]
    parts = readiness.look()
    all_there = all(part["ok"] for part in parts.values())
    return parts, HTTPStatus.OK if all_there else HTTPStatus.SERVICE_UNAVAILABLE, NO_STORE


@bp.get("/metrics")
def metrics() -> ResponseReturnValue:
    """What Prometheus reads, the same from any web process, if it shows METRICS_TOKEN; without one there is nothing."""
    token: str | None = current_app.config["METRICS_TOKEN"]
    if token is None:
        abort(HTTPStatus.NOT_FOUND)
    shown = request.authorization.token if request.authorization else None
    if not hmac.compare_digest((shown or "").encode(), token.encode()):
        return "A valid token is required.\n", HTTPStatus.UNAUTHORIZED, NO_STORE | {"WWW-Authenticate": "Bearer"}
    exposed: Metrics = current_app.extensions["metrics"]
    text, content_type = exposed.expose(request.headers.get("Accept", ""))
    return text, HTTPStatus.OK, NO_STORE | {"Content-Type": content_type}
