"""/api/tasks: list, read, cancel and retry jobs of the caller."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import sqlalchemy as sa
from flask import abort

from microblog import pagination
from microblog.api.auth import caller, require_token
from microblog.api.blueprint import Blueprint
from microblog.api.responses import PageResponse, page_response
from microblog.api.schemas import TaskPageSchema, TaskSchema
from microblog.api.serializers import abort_already_running, own_job, started, task_json
from microblog.extensions import db
from microblog.jobs.models import jobs_with_ids
from microblog.jobs.services import InvalidJobState, cancel_job, retry_job
from microblog.security import limit_launches
from microblog.taskqueue.interface import AlreadyRunning
from microblog.taskqueue.models import Task

bp = Blueprint(
    "api_tasks",
    __name__,
    url_prefix="/api/tasks",
    tag="tasks",
    description="Your jobs and their results.",
    guard=require_token,
)


@bp.get("")
@bp.lists(TaskPageSchema)
@bp.refuses(HTTPStatus.UNAUTHORIZED)
def index(query: dict[str, Any]) -> PageResponse:
    """List your jobs, newest first."""
    page = pagination.newest_first(
        sa.select(Task).where(Task.user_id == caller().id, Task.position == 0),
        Task.created_at,
        Task.id,
        size=query.get("limit"),
        before=query.get("before"),
        after=query.get("after"),
    )
    return page_response(query, page, (job.to_dict() for job in jobs_with_ids(root.id for root in page.items)))


@bp.get("/<task_id>")
@bp.response(HTTPStatus.OK, TaskSchema)
@bp.refuses(HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND)
def show(task_id: str) -> dict[str, Any]:
    """Show the current state of a job or of one of its later steps."""
    return task_json(own_job(task_id), task_id)


@bp.post("/<task_id>/cancel")
@bp.response(HTTPStatus.ACCEPTED, TaskSchema)
@bp.refuses(HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT)
def cancel(task_id: str) -> dict[str, Any]:
    """Request the cancellation of a job.

    A waiting job is REVOKED immediately; a running job stops at its next progress update.
    """
    try:
        cancel_job(own_job(task_id))
    except InvalidJobState as error:
        abort(HTTPStatus.CONFLICT, str(error))
    return task_json(own_job(task_id), task_id)


@bp.post("/<task_id>/retry")
@bp.response(HTTPStatus.ACCEPTED, TaskSchema, headers={"Location": "Location"})
@bp.refuses(HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT)
@limit_launches(lambda: caller().id)
def retry(task_id: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Retry a job that failed or was cancelled, as a new job."""
    try:
        response = started(retry_job(own_job(task_id)).id)
        db.session.commit()
    except InvalidJobState as error:
        abort(HTTPStatus.CONFLICT, str(error))
    except AlreadyRunning as error:
        abort_already_running(error)
    return response
