"""Lookups of users and jobs, and the JSON of jobs, which several resources share."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, NoReturn

from flask import abort, url_for
from flask_babel import gettext as _
from werkzeug.exceptions import Conflict

from microblog.accounts.models import User
from microblog.accounts.services import get_user_or_404
from microblog.api.auth import caller
from microblog.errors import problem
from microblog.extensions import db
from microblog.jobs.models import Job, find_job
from microblog.taskqueue.errors import AlreadyRunning


def find_user(username: str) -> User:
    """Return the user with this name. Raises NotFound.

    ``me`` is the caller; it cannot be a username, which has at least three characters.
    """
    if username == "me":
        return caller()
    return get_user_or_404(username)


def require_self(username: str) -> User:
    """Return the caller, who must be the user with this name. Raises NotFound and Forbidden."""
    user = find_user(username)
    return user if user.id == caller().id else abort(HTTPStatus.FORBIDDEN, _("You may only change what is yours."))


def own_job(step_id: str) -> Job:
    """Return the caller's job that has the step `step_id`.

    Raises NotFound, also for a job of another user.
    """
    return find_job(step_id, caller().id) or abort(HTTPStatus.NOT_FOUND, _("There is no such task."))


def job_json(job: Job, step_id: str) -> dict[str, Any]:
    """Return the fields of `job`: as a whole if `step_id` is that of its root, otherwise with those of that step."""
    whole = job.to_dict()
    step = next(step for step in whole["steps"] if step["id"] == step_id)
    return whole if step["id"] == job.id else {**whole, **step}


def job_started(job_id: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the body and headers of the response for a new job."""
    return job_json(own_job(job_id), job_id), {"Location": _path(job_id)}


def abort_already_running(error: AlreadyRunning) -> NoReturn:
    """Respond with 409, and with the id and the path of the running job unless it has just ended."""
    running = error.task.root_id if error.task else None
    db.session.rollback()
    response = problem(Conflict(_("A job of this kind is already running.")), **({"task": running} if running else {}))
    if running:
        response.headers["Location"] = _path(running)
    abort(response)


def _path(job_id: str) -> str:
    return url_for("api_tasks.show", task_id=job_id)
