"""Steering a job: cancel and retry, for its user's pages, the API and the operators alike."""

from __future__ import annotations

import logging

import sqlalchemy as sa
from celery import Signature
from celery.exceptions import BackendStoreError, NotRegistered, TaskRevokedError
from flask import current_app
from flask_babel import gettext as _

from microblog.clock import utcnow
from microblog.extensions import db
from microblog.jobs.job import Job
from microblog.taskqueue import states
from microblog.taskqueue.errors import JobError
from microblog.taskqueue.launch import launch
from microblog.taskqueue.models import Task

logger = logging.getLogger(__name__)


class NotNow(JobError):
    """The job is not in a state in which this can be done; the message says why."""


def cancel(job: Job) -> None:
    """Ask for `job` to be cancelled, and commit that.

    A job that waits is REVOKED at once; one that runs stops at its next progress step, and the steps behind it end
    with it. Raises NotNow if it has ended.
    """
    now = utcnow()
    asked = db.session.scalars(
        sa.update(Task)
        .where(Task.root_id == job.id, Task.unfinished)
        .values(cancel_requested_at=sa.func.coalesce(Task.cancel_requested_at, now), updated_at=now)
        .returning(Task.id)
    ).all()
    db.session.commit()
    if not asked:
        raise NotNow(_("It has already ended."))
    if job.current.state in states.WAITING:
        try:
            current_app.extensions["celery"].backend.end(job.current.id, TaskRevokedError("cancelled"))
        except BackendStoreError:
            logger.warning("Redis is away; %s is cancelled once it is back", job.id)
        db.session.expire_all()


def retry(job: Job) -> Task:
    """Launch a new job like `job`, in the caller's transaction; returns its first row.

    Raises NotNow unless `job` failed or was cancelled, and launch.AlreadyRunning.
    """
    if not job.retryable:
        raise NotNow(_("Only what failed or was cancelled can be tried again."))
    steps = [Signature.from_dict(step.signature).clone() for step in job.steps]
    try:
        return launch(steps, description=job.root.description, user_id=job.root.user_id, retried_from=job.id)
    except (NotRegistered, TypeError) as error:  # it is from a release that had another task there
        raise NotNow(_("This kind of job no longer exists.")) from error
