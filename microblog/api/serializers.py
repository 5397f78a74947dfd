"""Lookups and JSON of users, posts and tasks that several resources share."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, NoReturn

from flask import abort, url_for
from flask_babel import gettext as _
from werkzeug.exceptions import Conflict

from microblog.accounts.models import User
from microblog.accounts.services import get_user_or_404
from microblog.api.auth import caller
from microblog.clock import iso
from microblog.errors import problem
from microblog.extensions import db
from microblog.jobs.models import Job, find_job
from microblog.posts.models import Post
from microblog.taskqueue.interface import AlreadyRunning


def user_called(username: str) -> User:
    """The user of that name; ``me`` is the caller, as no name has fewer than three characters. Raises NotFound."""
    if username == "me":
        return caller()
    return get_user_or_404(username)


def myself(username: str) -> User:
    """The caller, who must be the user of that name. Raises NotFound and Forbidden."""
    user = user_called(username)
    return user if user.id == caller().id else abort(HTTPStatus.FORBIDDEN, _("You may only change what is yours."))


def user_json(user: User) -> dict[str, Any]:
    """Return the public fields of a user."""
    return {
        "username": user.username,
        "about_me": user.about_me,
        "created_at": iso(user.created_at),
        "last_seen_at": iso(user.last_seen_at),
    }


def post_json(post: Post) -> dict[str, Any]:
    """A post."""
    return {
        "id": post.id,
        "body": post.body,
        "timestamp": iso(post.timestamp),
        "language": post.language,
        "author": post.author.username,
    }


def own_job(task_id: str) -> Job:
    """The caller's job that `task_id` is a step of.

    Raises NotFound, the same for a job that is not theirs as for one that is none.
    """
    return find_job(task_id, caller().id) or abort(HTTPStatus.NOT_FOUND, _("There is no such task."))


def task_json(job: Job, task_id: str) -> dict[str, Any]:
    """The task `task_id` of `job`: the job as a whole under the id of its root, else that step."""
    whole = job.to_dict()
    step = next(step for step in whole["steps"] if step["id"] == task_id)
    return whole if step["id"] == job.id else {**whole, **step}


def started(task_id: str) -> tuple[dict[str, Any], dict[str, str]]:
    """The body and the headers that tell of a job just started."""
    return task_json(own_job(task_id), task_id), {"Location": _path(task_id)}


def refuse_second(refused: AlreadyRunning) -> NoReturn:
    """Answer 409, with the id and the path of the job that is running, unless it ended this very moment."""
    running = refused.task.root_id if refused.task else None
    db.session.rollback()
    response = problem(Conflict(_("A job of this kind is already running.")), **({"task": running} if running else {}))
    if running:
        response.headers["Location"] = _path(running)
    abort(response)


def _path(task_id: str) -> str:
    return url_for("api_tasks.show", task_id=task_id)
