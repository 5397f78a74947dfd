"""Cancel and retry jobs, for pages, API and operators; delete the jobs of a user whose account is deleted."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any

import sqlalchemy as sa
from celery import Signature, chain
from celery.exceptions import NotRegistered, TaskRevokedError
from flask_babel import gettext as _
from flask_babel import lazy_gettext as _l
from sqlalchemy.orm import aliased

from microblog.clock import utcnow
from microblog.database import deleted_batches, run_in_batches
from microblog.extensions import REDIS_UNAVAILABLE, db
from microblog.jobs.models import Job
from microblog.taskqueue import states
from microblog.taskqueue.errors import AlreadyRunning, JobError
from microblog.taskqueue.interface import celery_app, describe_ids, rows_needed_since
from microblog.taskqueue.launch import find_running, launch_jobs, new_rows
from microblog.taskqueue.models import Task
from microblog.taskqueue.transitions import anonymize_tasks, request_cancellation

logger = logging.getLogger(__name__)

BATCH = 500  # rows deleted in one transaction
ALREADY_ENDED = _l("It has already ended.")  # why a job is not cancelled


class InvalidJobState(JobError):
    """Raised if the state of the job does not allow the operation; the message is the reason."""


def cancel_job(job: Job) -> None:
    """Cancel one job as cancel_jobs() does. Raises InvalidJobState if it has ended."""
    if not cancel_jobs([job.id]):
        raise InvalidJobState(ALREADY_ENDED)


def cancel_jobs(job_ids: Collection[str]) -> set[str]:
    """Request the cancellation of jobs, and commit; return the ids of those that had not ended.

    Waiting jobs are REVOKED immediately. A running job stops at its next progress step, and its later steps end with
    it. Takes a few statements for all of them.
    """
    requested = request_cancellation(db.session, job_ids)
    db.session.commit()
    current = {step.root_id: step for step in sorted(requested, key=attrgetter("position"), reverse=True)}
    waiting = [step.id for step in current.values() if step.state in states.WAITING]
    if waiting:
        try:
            celery_app().backend.end(waiting, TaskRevokedError("cancelled"))
        except REDIS_UNAVAILABLE as error:
            logger.warning("Redis is unavailable (%s); reconcile cancels %s", error, describe_ids(waiting))
    db.session.expire_all()
    return set(current)


def retry_job(job: Job) -> Task:
    """Launch a new job like `job`, in the caller's transaction; return its first row.

    Raises InvalidJobState unless `job` failed or was cancelled, and AlreadyRunning if such a job is unfinished.
    """
    [outcome] = retry_jobs([job])
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def retry_jobs(jobs: Sequence[Job]) -> list[Task | InvalidJobState | AlreadyRunning]:
    """Launch a new job like each of `jobs`, in the caller's transaction, with one statement.

    Returns the first rows of the new jobs, or the errors that retry_job() raises.
    """
    prepared = [_rows_of_retry(job) for job in jobs]
    launched = iter(launch_jobs([rows for rows in prepared if isinstance(rows, list)]))
    return [
        (next(launched) or AlreadyRunning(find_running(rows))) if isinstance(rows, list) else rows for rows in prepared
    ]


def _rows_of_retry(job: Job) -> list[dict[str, Any]] | InvalidJobState:
    if not job.retryable:
        return InvalidJobState(_("Only what failed or was cancelled can be tried again."))
    root = job.root
    try:
        steps = [Signature.from_dict(step.signature) for step in job.steps]
        return new_rows(chain(*steps), description=root.description, user_id=root.user_id, retried_from=job.id)
    except (NotRegistered, TypeError, KeyError, AttributeError):  # from another release, or anonymized
        return InvalidJobState(_("This kind of job no longer exists."))


def cancel_jobs_of_user(user_id: int) -> bool:
    """Request the cancellation of all unfinished jobs of a user; return whether all of them have ended."""
    unfinished = sa.select(Task.root_id).where(Task.user_id == user_id, Task.unfinished).distinct()
    cancel_jobs(db.session.scalars(unfinished).all())
    return not db.session.scalars(unfinished.limit(1)).all()


def delete_jobs_of_user(user_id: int) -> Iterator[int]:
    """Delete the rows of a user's jobs in batches; yield the number of rows after the commit of each batch.

    The rows of a job that statistics still need are anonymized instead: their user and all contents are removed. They
    are purged later with all others of their age.
    """
    needed = [since for _receiver, since in rows_needed_since.send(celery_app())]
    old = _ended_before(user_id, min([utcnow(), *needed])).limit(BATCH)
    recent = sa.select(Task.id).where(Task.user_id == user_id).limit(BATCH)
    yield from deleted_batches(db.session, sa.delete(Task).where(Task.root_id.in_(old)))
    yield from run_in_batches(db.session, lambda: anonymize_tasks(db.session, recent))


def _ended_before(user_id: int, before: datetime) -> sa.Select[str]:
    root, step = aliased(Task), aliased(Task)
    too_recent = sa.exists().where(
        step.root_id == root.root_id, sa.or_(step.finished_at.is_(None), step.finished_at >= before)
    )
    return sa.select(root.root_id).where(root.user_id == user_id, root.position == 0, ~too_recent)
