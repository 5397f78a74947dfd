"""/api/tasks, /api/exports and /api/imports: start, list, read, cancel and retry jobs of the caller."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from flask import abort, request
from flask_babel import gettext as _

from microblog.api.auth import caller
from microblog.api.blueprint import Blueprint, abort_invalid
from microblog.api.responses import PageResponse, page_request, page_response
from microblog.api.schemas import ExportRequestSchema, RejectedEntryPageSchema, TaskPageSchema, TaskSchema
from microblog.api.serializers import abort_already_running, job_json, job_started, own_job
from microblog.exports.services import start_export
from microblog.extensions import db
from microblog.imports import rejected_entries, uploads
from microblog.jobs.models import jobs_of_user
from microblog.jobs.services import InvalidJobState, cancel_job, retry_job
from microblog.rate_limits import limit_launches
from microblog.security import accepts_upload
from microblog.storage import CHUNK
from microblog.taskqueue.errors import AlreadyRunning

bp = Blueprint(
    "api_tasks",
    __name__,
    url_prefix="/api/tasks",
    tag="tasks",
    description="Your jobs and their results.",
)

exports_bp = Blueprint(
    "api_exports",
    __name__,
    url_prefix="/api/exports",
    tag="exports",
    description="Export all your posts as an archive that is mailed to you.",
)
imports_bp = Blueprint(
    "api_imports",
    __name__,
    url_prefix="/api/imports",
    tag="imports",
    description="Import posts that you wrote elsewhere or exported from here.",
)


@bp.get("")
@bp.lists(TaskPageSchema)
def index(query: dict[str, Any]) -> PageResponse:
    """List your jobs, newest first."""
    page = jobs_of_user(caller().id, page_request(query))
    return page_response(query, page, (job.to_dict() for job in page.items))


@bp.get("/<task_id>")
@bp.response(HTTPStatus.OK, TaskSchema)
@bp.error_responses(HTTPStatus.NOT_FOUND)
def show(task_id: str) -> dict[str, Any]:
    """Show the current state of a job or of one of its later steps."""
    return job_json(own_job(task_id), task_id)


@bp.post("/<task_id>/cancel")
@bp.response(HTTPStatus.ACCEPTED, TaskSchema)
@bp.error_responses(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT)
def cancel(task_id: str) -> dict[str, Any]:
    """Request the cancellation of a job.

    A waiting job is REVOKED immediately; a running job stops at its next progress update.
    """
    try:
        cancel_job(own_job(task_id))
    except InvalidJobState as error:
        abort(HTTPStatus.CONFLICT, str(error))
    return job_json(own_job(task_id), task_id)


@bp.post("/<task_id>/retry")
@bp.response(HTTPStatus.ACCEPTED, TaskSchema, headers={"Location": "Location"})
@bp.error_responses(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT)
@limit_launches(lambda: caller().id)
def retry(task_id: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Retry a job that failed or was cancelled, as a new job."""
    try:
        response = job_started(retry_job(own_job(task_id)).id)
        db.session.commit()
    except InvalidJobState as error:
        abort(HTTPStatus.CONFLICT, str(error))
    except AlreadyRunning as error:
        abort_already_running(error)
    return response


@exports_bp.post("")
@exports_bp.arguments(ExportRequestSchema, required=False)
@exports_bp.response(HTTPStatus.ACCEPTED, TaskSchema, headers={"Location": "Location"})
@exports_bp.error_responses(HTTPStatus.CONFLICT)
@limit_launches(lambda: caller().id)
def export(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Start an export, unless one is already running."""
    try:
        response = job_started(start_export(caller()).id)
        db.session.commit()
    except AlreadyRunning as error:
        abort_already_running(error)
    return response


_FILE = {
    "required": True,
    "description": "The posts.json of an export, or the unmodified outbox.json of a Mastodon archive.",
    "content": {"application/json": {"schema": {"type": "object"}}},
}


@imports_bp.post("")
@accepts_upload("IMPORT_MAX_SIZE")
@imports_bp.doc(requestBody=_FILE)
@imports_bp.response(HTTPStatus.ACCEPTED, TaskSchema, headers={"Location": "Location"})
@imports_bp.error_responses(HTTPStatus.CONFLICT, HTTPStatus.UNPROCESSABLE_ENTITY)
@limit_launches(lambda: caller().id)
def import_file() -> tuple[dict[str, Any], dict[str, str]]:
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
    return job_started(task.id)


@imports_bp.get("/<task_id>/refusals")
@imports_bp.lists(RejectedEntryPageSchema)
@imports_bp.error_responses(HTTPStatus.NOT_FOUND)
def rejected(query: dict[str, Any], task_id: str) -> PageResponse:
    """List the entries that an import rejected, in the order of the file.

    The list is empty once it has expired or another import of yours has started. The `result` of the task has the
    number of rejected entries (`refused`) and the first of them, unless the file was malformed.
    """
    upload_id = uploads.id_of(own_job(task_id)) or abort(HTTPStatus.NOT_FOUND, _("There is no such import."))
    page = rejected_entries.page_of(upload_id, page_request(query))
    return page_response(query, page, page.items)
