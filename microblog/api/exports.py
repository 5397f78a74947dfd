"""/api/exports: request an export."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from flask_babel import gettext as _

from microblog.api.auth import caller, require_token
from microblog.api.blueprint import Blueprint
from microblog.api.schemas import ExportRequestSchema, TaskSchema
from microblog.api.serializers import refuse_second, started
from microblog.extensions import db
from microblog.security import limit_launches
from microblog.taskqueue.launch import AlreadyRunning

bp = Blueprint(
    "api_exports",
    __name__,
    url_prefix="/api/exports",
    tag="exports",
    description="An archive of all that you wrote, mailed to you.",
    guard=require_token,
)


@bp.post("")
@bp.arguments(ExportRequestSchema, required=False)
@bp.response(HTTPStatus.ACCEPTED, TaskSchema, headers={"Location": "Location"})
@bp.refuses(HTTPStatus.UNAUTHORIZED, HTTPStatus.CONFLICT)
@limit_launches(lambda: caller().id)
def create(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Start an export, unless one is running."""
    try:
        answer = started(caller().launch_task("export_posts", _("Exporting your posts")).id)
        db.session.commit()
    except AlreadyRunning as refused:
        refuse_second(refused)
    return answer
