"""/api/imports: import a file of posts."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from flask import abort, request
from flask_babel import gettext as _

from microblog.api.auth import caller, require_token
from microblog.api.blueprint import Blueprint, abort_invalid
from microblog.api.responses import PageResponse, page_response
from microblog.api.schemas import RejectedEntryPageSchema, TaskSchema
from microblog.api.serializers import abort_already_running, own_job, started
from microblog.imports import rejected_entries, uploads
from microblog.security import accepts_upload, limit_launches
from microblog.storage import CHUNK
from microblog.taskqueue.interface import AlreadyRunning

bp = Blueprint(
    "api_imports",
    __name__,
    url_prefix="/api/imports",
    tag="imports",
    description="Import posts that you wrote elsewhere or exported from here.",
    guard=require_token,
)
_FILE = {
    "required": True,
    "description": "The posts.json of an export, or the unmodified outbox.json of a Mastodon archive.",
    "content": {"application/json": {"schema": {"type": "object"}}},
}


@bp.post("")
@accepts_upload("IMPORT_MAX_SIZE")
@bp.doc(requestBody=_FILE)
@bp.response(HTTPStatus.ACCEPTED, TaskSchema, headers={"Location": "Location"})
@bp.refuses(HTTPStatus.UNAUTHORIZED, HTTPStatus.CONFLICT, HTTPStatus.UNPROCESSABLE_ENTITY)
@limit_launches(lambda: caller().id)
def create() -> tuple[dict[str, Any], dict[str, str]]:
    """Start an import, unless one is already running.

    The body is the file. Posts that you already have are not duplicated. The outcome of the import is in the
    `result` of the task.
    """
    try:
        task = uploads.start(caller(), iter(lambda: request.stream.read(CHUNK), b""))
    except uploads.NotAPostsFile as error:
        abort_invalid({"json": {"_schema": [str(error)]}})
    except AlreadyRunning as error:
        abort_already_running(error)
    return started(task.id)


@bp.get("/<task_id>/refusals")
@bp.lists(RejectedEntryPageSchema)
@bp.refuses(HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND)
def refused(query: dict[str, Any], task_id: str) -> PageResponse:
    """List the entries that an import rejected, in the order of the file.

    The list is empty once it has expired or another import of yours has started. The `result` of the task has the
    number of rejected entries (`refused`) and the first of them, unless the file was malformed.
    """
    upload_id = uploads.id_of(own_job(task_id)) or abort(HTTPStatus.NOT_FOUND, _("There is no such import."))
    page = rejected_entries.page_of(upload_id, query.get("limit"), query.get("before"), query.get("after"))
    return page_response(query, page, page.items)
