"""Cancel and retry for operators: which jobs are meant, and for each a sentence that tells what became of it."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, replace

import sqlalchemy as sa

from microblog.extensions import db
from microblog.jobs import control
from microblog.jobs import job as jobs
from microblog.jobs.job import Job
from microblog.monitoring import jobs as all_jobs
from microblog.monitoring import remote
from microblog.monitoring.filters import SETBACKS, Filters
from microblog.taskqueue import states
from microblog.taskqueue.launch import AlreadyRunning
from microblog.taskqueue.models import Task

KILLED_WITHIN = 3.0  # seconds, in which a worker that has killed a process says so
LOOK_EVERY = 0.05


@dataclass(frozen=True)
class Outcome:
    """Whether it was done, as a sentence too, and the job that it is about; None if there is no such job."""

    done: bool
    sentence: str
    job: Job | None


def cancellable(filters: Filters) -> list[str]:
    """The ids of the jobs that `filters` let through and that have yet to end, newest first."""
    return _within(filters, states.UNFINISHED)


def retryable(filters: Filters) -> list[str]:
    """The ids of the jobs that `filters` let through, that failed or were cancelled, and were not tried again yet."""
    ended = _within(filters, SETBACKS)
    tried_again = set(db.session.scalars(sa.select(Task.retried_from).where(Task.retried_from.is_not(None))))
    return [job_id for job_id in ended if job_id not in tried_again]


def cancel(job: Job) -> Outcome:
    """Cancel `job`: at once if it waits, else at its next progress step."""
    try:
        control.cancel(job)
    except control.NotNow as refused:
        return Outcome(False, str(refused), job)
    job = _again(job.id)
    return Outcome(True, _after_cancel(job), job)


def terminate(job: Job, timeout: float) -> Outcome:
    """Cancel `job`, and have the worker kill the process that runs it; workers have `timeout` seconds to answer.

    It is marked first: whatever the worker does, the job is not run again, and ends as REVOKED. Raises
    redis.exceptions.RedisError or kombu.exceptions.OperationalError if Redis is away.
    """
    cancelled = cancel(job)
    job = cancelled.job or job
    if not cancelled.done or job.current.state not in states.RUNNING:
        return cancelled
    kill = {"task_id": job.current.id, "terminate": True, "signal": "SIGKILL"}
    said = {each.worker: each for each in remote.tell("revoke", kill, timeout, done="")}
    deadline = time.monotonic() + KILLED_WITHIN
    holder = said.get(job.current.worker or "")
    while job.unfinished and holder and holder.done and time.monotonic() < deadline:
        time.sleep(LOOK_EVERY)
        job = _again(job.id)
    if not job.unfinished:
        return Outcome(True, "killed." if job.state == states.REVOKED else _after_cancel(job), job)
    who = job.current.worker
    return Outcome(True, f"asked to stop; {who} does not answer: it ends once the lease of {who} has run out.", job)


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
    job = _again(task_id)
    when = "" if job.root.published_at else ", which starts once Redis is back: it does not answer now"
    return Outcome(True, f"tried again as {job.id}{when}", job)


def _within(filters: Filters, allowed: Collection[str]) -> list[str]:
    wanted = filters.within(allowed)
    return list(all_jobs.ids(replace(filters, states=wanted))) if wanted else []


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
