"""Cancel and retry for operators: each ends in a sentence that tells what became of it."""

from __future__ import annotations

from dataclasses import dataclass

from celery.exceptions import NotRegistered

from microblog.extensions import db
from microblog.jobs import control
from microblog.jobs import job as jobs
from microblog.jobs.job import Job
from microblog.taskqueue import states
from microblog.taskqueue.launch import AlreadyRunning


@dataclass(frozen=True)
class Outcome:
    """Whether it was done, as a sentence too, and the job that it is about; None if there is no such job."""

    done: bool
    sentence: str
    job: Job | None


def cancel(job: Job) -> Outcome:
    """Cancel `job`."""
    try:
        control.cancel(job)
    except control.NotNow as refused:
        return Outcome(False, str(refused), job)
    job = _again(job.id)
    return Outcome(True, _after_cancel(job), job)


def retry(job: Job) -> Outcome:
    """Launch a new job like `job`; the outcome has the new one."""
    try:
        task_id = control.retry(job).id
        db.session.commit()
    except control.NotNow as refused:
        return Outcome(False, str(refused), job)
    except AlreadyRunning as refused:
        running = f": {refused.task.root_id}" if refused.task else "."
        db.session.rollback()
        return Outcome(False, f"a job of this kind is already running{running}", job)
    except (NotRegistered, TypeError):  # it is from a version of Microblog that had another task there
        db.session.rollback()
        return Outcome(False, f"there is no task {job.root.name} any more that takes its arguments.", job)
    job = _again(task_id)
    when = "" if job.root.published_at else ", which starts once Redis is back: it does not answer now"
    return Outcome(True, f"tried again as {job.id}{when}", job)


def _after_cancel(job: Job) -> str:
    if job.state == states.REVOKED:
        return "cancelled."
    if job.current.state in states.WAITING:
        return "will be cancelled once Redis is back: it does not answer now."
    if job.unfinished:
        return "asked to stop; it does at its next progress step."
    return f"ended in the meantime: {job.state}."


def _again(task_id: str) -> Job:
    """The job as it stands by now."""
    db.session.expire_all()
    job = jobs.find(task_id)
    if job is None:
        raise LookupError(task_id)
    return job
