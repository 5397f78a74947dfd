"""/api/exports: request an export."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from microblog.api.auth import caller, require_token
from microblog.api.blueprint import Blueprint
from microblog.api.schemas import ExportRequestSchema, TaskSchema
from microblog.api.serializers import abort_already_running, started
from microblog.exports.services import start_export
from microblog.extensions import db
from microblog.security import limit_launches
from microblog.taskqueue.interface import AlreadyRunning

bp = Blueprint(
    "api_exports",
    __name__,
    url_prefix="/api/exports",
    tag="exports",
    description="Export all your posts as an archive that is mailed to you.",
    guard=require_token,
)


@bp.post("")
@bp.arguments(ExportRequestSchema, required=False)
@bp.response(HTTPStatus.ACCEPTED, TaskSchema, headers={"Location": "Location"})
@bp.refuses(HTTPStatus.UNAUTHORIZED, HTTPStatus.CONFLICT)
@limit_launches(lambda: caller().id)
def create(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Start an export, unless one is already running."""
    try:
        response = started(start_export(caller()).id)
        db.session.commit()
    except AlreadyRunning as error:
        abort_already_running(error)
    return response
