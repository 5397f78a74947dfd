"""Operators' actions on jobs: cancel and retry, one or many, and run a task by hand."""

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
from microblog.jobs.services import NotAllowedNow, cancel_job, retry_job
from microblog.monitoring.filters import SETBACKS, Filters
from microblog.monitoring.job_queries import find_job_ids
from microblog.monitoring.workers import send_command
from microblog.taskqueue import states
from microblog.taskqueue.interface import AlreadyRunning, celery_app
from microblog.taskqueue.launch import launch
from microblog.taskqueue.models import Task

KILLED_WITHIN = 3.0  # seconds, in which a worker that has killed a process says so
LOOK_EVERY = 0.05


@dataclass(frozen=True)
class ActionResult:
    """Outcome of an action: whether it was done, a sentence, and the job; None if there is no such job."""

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


def cancel_with_reason(job: Job) -> ActionResult:
    """Cancel `job`: at once if it waits, else at its next progress step."""
    try:
        cancel_job(job)
    except NotAllowedNow as refused:
        return ActionResult(False, str(refused), job)
    job = _again(job.id)
    return ActionResult(True, _after_cancel(job), job)


def terminate_job(job: Job, timeout: float) -> ActionResult:
    """Cancel `job`, and have the worker kill the process that runs it; workers have `timeout` seconds to answer.

    It is marked first: whatever the worker does, the job is not run again, and ends as REVOKED. Raises
    redis.exceptions.RedisError or kombu.exceptions.OperationalError if Redis is away.
    """
    cancelled = cancel_with_reason(job)
    job = cancelled.job or job
    if not cancelled.done or job.current.state not in states.RUNNING:
        return cancelled
    kill = {"task_id": job.current.id, "terminate": True, "signal": "SIGKILL"}
    said = {each.worker: each for each in send_command("revoke", kill, timeout, done="")}
    deadline = time.monotonic() + KILLED_WITHIN
    holder = said.get(job.current.worker or "")
    while job.unfinished and holder and holder.done and time.monotonic() < deadline:
        time.sleep(LOOK_EVERY)
        job = _again(job.id)
    if not job.unfinished:
        return ActionResult(True, "killed." if job.state == states.REVOKED else _after_cancel(job), job)
    who = job.current.worker
    return ActionResult(
        True, f"asked to stop; {who} does not answer: it ends once the lease of {who} has run out.", job
    )


def retry_with_reason(job: Job) -> ActionResult:
    """Launch a new job like `job`; the outcome has the new one."""
    try:
        task_id = retry_job(job).id
        db.session.commit()
    except NotAllowedNow as refused:
        return ActionResult(False, str(refused), job)
    except AlreadyRunning as refused:
        running = f": {refused.task.root_id}" if refused.task else "."
        db.session.rollback()
        return ActionResult(False, f"a job of this kind is already running{running}", job)
    job = _again(task_id)
    when = "" if job.root.published_at else ", which starts once Redis is back: it does not answer now"
    return ActionResult(True, f"tried again as {job.id}{when}", job)


def _within(filters: Filters, allowed: Collection[str]) -> list[str]:
    wanted = filters.within(allowed)
    return list(find_job_ids(replace(filters, states=wanted))) if wanted else []


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
    job = find_job(task_id)
    if job is None:
        raise LookupError(task_id)
    return job


MOST_AT_ONCE = 500  # jobs that one request steers: it is to be answered before its reader gives up
EXAMPLES = 3  # refusals that are told in full


@dataclass(frozen=True)
class Action:
    """An action on jobs, and the function that returns the ids of filtered jobs that allow it, newest first."""

    act: Callable[[Job], ActionResult]
    choose: Callable[[Filters], list[str]]


ACTIONS = {
    "cancel": Action(cancel_with_reason, cancellable),
    "retry": Action(retry_with_reason, retryable),
}


@dataclass
class BulkResult:
    """Numbers of jobs for which an action succeeded and failed, and some of the latter."""

    done: int = 0
    refused: int = 0
    examples: list[ActionResult] = field(default_factory=list)

    def take(self, outcome: ActionResult) -> None:
        """Count one in."""
        if outcome.done:
            self.done += 1
            return
        self.refused += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(outcome)


def apply_to_jobs(action: str, task_ids: Iterable[str]) -> BulkResult:
    """Do `action` to the jobs of these tasks, at most MOST_AT_ONCE; unknown ones are left out."""
    tally = BulkResult()
    for task_id in islice(dict.fromkeys(task_ids), MOST_AT_ONCE):
        if (job := find_job(task_id)) is not None:
            tally.take(ACTIONS[action].act(job))
    return tally


def chosen_jobs(action: str, filters: Filters, until: datetime) -> list[str]:
    """The ids of the jobs of `filters` that were created before `until` and to which `action` can be done."""
    before = min(filter(None, (filters.created_before, until)))
    return ACTIONS[action].choose(replace(filters, created_before=before))


class TaskNotRunnable(Exception):
    """There is no such task, or it is not one to be run by hand; the sentence tells which are."""


class InvalidTaskArguments(Exception):
    """The arguments do not fit the task; the sentence tells how."""


def runnable_tasks() -> dict[str, Any]:
    """The tasks that may be run by hand, by their names."""
    registered = celery_app().tasks
    return {
        name: task
        for name, task in sorted(registered.items())
        if getattr(task, "interval_setting", "") or getattr(task, "runnable", False)
    }


def parse_task_arguments(task: Any) -> str:
    """The arguments that `task` takes, as in its signature: ``(batch, limit=10)``."""
    signature = inspect.signature(task.run)
    bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in signature.parameters.values()]
    return str(signature.replace(parameters=bare, return_annotation=inspect.Signature.empty))


def run_task(name: str, args: list[Any], kwargs: dict[str, Any]) -> Job:
    """Launch the task `name` as a job of the system's own, and commit. Raises TaskNotRunnable, InvalidTaskArguments."""
    tasks = runnable_tasks()
    if name not in tasks:
        raise TaskNotRunnable(f"{name} is not a task to be run by hand; these are: {', '.join(tasks)}.")
    try:
        # Its result is wanted, unlike that of the runs by beat.
        task_id = launch(tasks[name].s(*args, **kwargs).set(ignore_result=False)).id
    except TypeError as error:
        db.session.rollback()
        raise InvalidTaskArguments(f"{name} takes {parse_task_arguments(tasks[name])}: {error}.") from None
    db.session.commit()
    db.session.expire_all()
    job = find_job(task_id)
    if job is None:
        raise LookupError(task_id)
    return job
