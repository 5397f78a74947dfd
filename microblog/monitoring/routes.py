"""/healthz and /readyz, for whatever keeps the processes running and sends readers to them."""

from __future__ import annotations

from http import HTTPStatus

from flask import Blueprint, current_app
from flask.typing import ResponseReturnValue

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
