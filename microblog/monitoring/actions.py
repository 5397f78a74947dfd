"""Operators' actions: cancel and retry jobs, one or many, and run single tasks."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import islice
from typing import Any

import sqlalchemy as sa

from microblog.extensions import db
from microblog.jobs.models import Job, find_job
from microblog.jobs.services import InvalidJobState, cancel_job, retry_job
from microblog.monitoring.filters import UNSUCCESSFUL, Filters
from microblog.monitoring.job_queries import find_job_ids
from microblog.monitoring.workers import send_command
from microblog.taskqueue import states
from microblog.taskqueue.errors import AlreadyRunning
from microblog.taskqueue.interface import celery_app
from microblog.taskqueue.launch import build_job, launch
from microblog.taskqueue.models import Task

KILL_TIMEOUT = 3.0  # seconds within which a worker reports that it has killed a process
POLL_INTERVAL = 0.05  # seconds between two checks of the row
MAX_BULK_JOBS = 500  # jobs in one bulk request, which must end before the client times out
MAX_EXAMPLES = 3  # refusals that are reported in full


@dataclass(frozen=True)
class ActionResult:
    """Outcome of an action: whether it was done, a message for operators, and the job (None if it does not exist)."""

    done: bool
    message: str
    job: Job | None


def cancellable(filters: Filters) -> list[str]:
    """Return the ids of the unfinished jobs that match `filters`, newest first."""
    return _within(filters, states.UNFINISHED)


def retryable(filters: Filters) -> list[str]:
    """Return the ids of the failed or cancelled jobs that match `filters` and were not retried, newest first."""
    ended = _within(filters, UNSUCCESSFUL)
    retried = set(db.session.scalars(sa.select(Task.retried_from).where(Task.retried_from.is_not(None))))
    return [job_id for job_id in ended if job_id not in retried]


def cancel_with_reason(job: Job) -> ActionResult:
    """Cancel `job`: at once if it is waiting, otherwise at its next progress update."""
    try:
        cancel_job(job)
    except InvalidJobState as error:
        return ActionResult(False, str(error), job)
    job = _reload(job.id)
    return ActionResult(True, _after_cancel(job), job)


def terminate_job(job: Job, timeout: float) -> ActionResult:
    """Cancel `job`, and have the worker kill the process that runs it; workers have `timeout` seconds to reply.

    The cancellation is stored first: whatever the worker does, the job is not run again and ends as REVOKED. Raises
    redis.exceptions.RedisError or kombu.exceptions.OperationalError if Redis is unavailable.
    """
    cancelled = cancel_with_reason(job)
    job = cancelled.job or job
    if not cancelled.done or job.current.state not in states.RUNNING:
        return cancelled
    kill = {"task_id": job.current.id, "terminate": True, "signal": "SIGKILL"}
    replies = {reply.worker: reply for reply in send_command("revoke", kill, timeout, done="")}
    deadline = time.monotonic() + KILL_TIMEOUT
    holder_reply = replies.get(job.current.worker or "")
    while job.unfinished and holder_reply and holder_reply.done and time.monotonic() < deadline:
        time.sleep(POLL_INTERVAL)
        job = _reload(job.id)
    if not job.unfinished:
        return ActionResult(True, "terminated." if job.state == states.REVOKED else _after_cancel(job), job)
    worker = job.current.worker
    return ActionResult(
        True, f"cancellation requested; {worker} did not reply, so the job ends when its lease expires.", job
    )


def retry_with_reason(job: Job) -> ActionResult:
    """Retry `job` as a new job, which is the job of the outcome."""
    try:
        task_id = retry_job(job).id
        db.session.commit()
    except InvalidJobState as error:
        return ActionResult(False, str(error), job)
    except AlreadyRunning as error:
        running = f": {error.task.root_id}" if error.task else "."
        db.session.rollback()
        return ActionResult(False, f"a job of this kind is already running{running}", job)
    job = _reload(task_id)
    when = "" if job.root.published_at else "; Redis is unavailable, so it starts once Redis is back"
    return ActionResult(True, f"retried as {job.id}{when}", job)


def _within(filters: Filters, allowed: Collection[str]) -> list[str]:
    matching = filters.within(allowed)
    return list(find_job_ids(replace(filters, states=matching))) if matching else []


def _after_cancel(job: Job) -> str:
    if job.state == states.REVOKED:
        return "cancelled."
    if job.current.state in states.WAITING:
        return "will be cancelled once Redis is back; it is unavailable now."
    if job.unfinished:
        return "cancellation requested; it ends at its next progress update."
    return f"ended in the meantime: {job.state}."


def _reload(task_id: str) -> Job:
    """Return the current state of a job."""
    db.session.expire_all()
    job = find_job(task_id)
    if job is None:
        raise LookupError(task_id)
    return job


@dataclass(frozen=True)
class Action:
    """An action on a job, and the function that returns the ids of matching jobs that allow it, newest first."""

    act: Callable[[Job], ActionResult]
    choose: Callable[[Filters], list[str]]


ACTIONS = {
    "cancel": Action(cancel_with_reason, cancellable),
    "retry": Action(retry_with_reason, retryable),
}


@dataclass
class BulkResult:
    """Numbers of jobs for which an action was done and refused, with examples of refusals."""

    done: int = 0
    refused: int = 0
    examples: list[ActionResult] = field(default_factory=list)

    def count(self, outcome: ActionResult) -> None:
        """Count `outcome`."""
        if outcome.done:
            self.done += 1
            return
        self.refused += 1
        if len(self.examples) < MAX_EXAMPLES:
            self.examples.append(outcome)


def apply_to_jobs(action: str, task_ids: Iterable[str]) -> BulkResult:
    """Apply `action` to the jobs of these tasks, at most MAX_BULK_JOBS; unknown ids are skipped."""
    result = BulkResult()
    for task_id in islice(dict.fromkeys(task_ids), MAX_BULK_JOBS):
        if (job := find_job(task_id)) is not None:
            result.count(ACTIONS[action].act(job))
    return result


def find_actionable_jobs(action: str, filters: Filters, until: datetime) -> list[str]:
    """Return the ids of the jobs that match `filters`, were created up to `until`, and allow `action`."""
    created_before = min(filter(None, (filters.created_before, until)))
    return ACTIONS[action].choose(replace(filters, created_before=created_before))


class TaskNotRunnable(Exception):
    """Raised if a task does not exist or operators cannot run it; the message lists the tasks that they can run."""


class InvalidTaskArguments(Exception):
    """Raised if the arguments do not match the signature of the task; the message shows it."""


def runnable_tasks() -> dict[str, Any]:
    """Return the tasks that operators can run, by name."""
    registered = celery_app().tasks
    return {
        name: task
        for name, task in sorted(registered.items())
        if getattr(task, "interval_setting", "") or getattr(task, "runnable", False)
    }


def known_tasks() -> list[str]:
    """Return the names of the registered tasks, without Celery's own."""
    return sorted(name for name in celery_app().tasks if not name.startswith("celery."))


def format_signature(task: Any) -> str:
    """Return the signature of `task` without annotations, such as ``(batch, limit=10)``."""
    signature = inspect.signature(task.run)
    bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in signature.parameters.values()]
    return str(signature.replace(parameters=bare, return_annotation=inspect.Signature.empty))


def run_task(name: str, args: list[Any], kwargs: dict[str, Any]) -> Job:
    """Launch the task `name` as a job without a user, and commit. Raises TaskNotRunnable and InvalidTaskArguments."""
    tasks = runnable_tasks()
    if name not in tasks:
        raise TaskNotRunnable(f"{name} is not a task that operators can run; available tasks: {', '.join(tasks)}.")
    try:
        task_id = launch(build_job(name, *args, **kwargs)).id
    except TypeError as error:
        db.session.rollback()
        raise InvalidTaskArguments(f"{name} takes {format_signature(tasks[name])}: {error}.") from None
    db.session.commit()
    return _reload(task_id)
