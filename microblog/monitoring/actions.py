"""Operators' actions: cancel and retry jobs, one or many, and run single tasks."""

from __future__ import annotations

import inspect
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from redis.exceptions import RedisError

from microblog.extensions import db
from microblog.jobs.models import Job, find_jobs_of_steps, jobs_with_ids
from microblog.jobs.services import ALREADY_ENDED, cancel_jobs, retry_jobs
from microblog.monitoring.filters import UNSUCCESSFUL, Filters
from microblog.monitoring.job_queries import find_job_ids
from microblog.monitoring.workers import send_command
from microblog.taskqueue import states
from microblog.taskqueue.errors import AlreadyRunning
from microblog.taskqueue.interface import celery_app
from microblog.taskqueue.launch import build_job, launch
from microblog.taskqueue.models import Task
from microblog.taskqueue.queues import remove_messages

logger = logging.getLogger(__name__)

BATCH = 200  # jobs that one transaction changes, for which users who launch the same jobs may have to wait
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


def cancel_with_reasons(jobs: Sequence[Job]) -> list[ActionResult]:
    """Cancel `jobs`: at once those that are waiting, the others at their next progress update."""
    job_ids = [job.id for job in jobs]
    requested = cancel_jobs(job_ids)
    return [
        ActionResult(True, _after_cancel(job), job)
        if job.id in requested
        else ActionResult(False, str(ALREADY_ENDED), job)
        for job in _reload(job_ids)
    ]


def terminate_jobs(jobs: Sequence[Job], timeout: float) -> list[ActionResult]:
    """Cancel `jobs`, and have workers kill the processes that run them; workers have `timeout` seconds to reply.

    The cancellations are stored first: whatever a worker does, its job is not run again and ends as REVOKED. Raises
    redis.exceptions.RedisError or kombu.exceptions.OperationalError if Redis is unavailable.
    """
    return [_terminate(cancelled, timeout) for cancelled in cancel_with_reasons(jobs)]


def _terminate(cancelled: ActionResult, timeout: float) -> ActionResult:
    job = cancelled.job
    if job is None or not cancelled.done or job.current.state not in states.RUNNING:
        return cancelled
    kill = {"task_id": job.current.id, "terminate": True, "signal": "SIGKILL"}
    replies = {reply.worker: reply for reply in send_command("revoke", kill, timeout, done="")}
    deadline = time.monotonic() + KILL_TIMEOUT
    holder_reply = replies.get(job.current.worker or "")
    while job.unfinished and holder_reply and holder_reply.done and time.monotonic() < deadline:
        time.sleep(POLL_INTERVAL)
        [job] = _reload([job.id])
    if not job.unfinished:
        return ActionResult(True, "terminated." if job.state == states.REVOKED else _after_cancel(job), job)
    worker = job.current.worker
    return ActionResult(
        True, f"cancellation requested; {worker} did not reply, so the job ends when its lease expires.", job
    )


def retry_with_reasons(jobs: Sequence[Job]) -> list[ActionResult]:
    """Retry `jobs` as new jobs, which are the jobs of the outcomes, and commit."""
    outcomes = retry_jobs(jobs)
    refusals = [_why_refused(outcome) if isinstance(outcome, Exception) else "" for outcome in outcomes]
    job_ids = [outcome.id if isinstance(outcome, Task) else job.id for job, outcome in zip(jobs, outcomes, strict=True)]
    db.session.commit()
    return [
        ActionResult(not refusal, refusal or _after_retry(job), job)
        for refusal, job in zip(refusals, _reload(job_ids), strict=True)
    ]


def _within(filters: Filters, allowed: Collection[str]) -> list[str]:
    matching = filters.within(allowed)
    return list(find_job_ids(replace(filters, states=matching))) if matching else []


def _after_cancel(job: Job) -> str:
    if job.state == states.REVOKED:
        return "cancelled."
    if job.current.state in states.WAITING:
        return "will be cancelled once Redis and the database are available."
    if job.unfinished:
        return "cancellation requested; it ends at its next progress update."
    return f"ended in the meantime: {job.state}."


def _why_refused(error: Exception) -> str:
    if not isinstance(error, AlreadyRunning):
        return str(error)
    return f"a job of this kind is already running{f': {error.task.root_id}' if error.task else '.'}"


def _after_retry(job: Job) -> str:
    when = "" if job.root.published_at else "; Redis is unavailable, so it starts once Redis is back"
    return f"retried as {job.id}{when}"


def _reload(job_ids: Sequence[str]) -> list[Job]:
    """Return the current state of jobs. Raises LookupError if one was purged."""
    db.session.expire_all()
    jobs = jobs_with_ids(job_ids)
    if len(jobs) < len(job_ids):
        raise LookupError(set(job_ids) - {job.id for job in jobs})
    return jobs


BatchAction = Callable[[Sequence[Job]], list[ActionResult]]


@dataclass(frozen=True)
class Action:
    """An action on jobs, and the function that returns the ids of matching jobs that allow it, newest first."""

    act: BatchAction
    choose: Callable[[Filters], list[str]]


ACTIONS = {
    "cancel": Action(cancel_with_reasons, cancellable),
    "retry": Action(retry_with_reasons, retryable),
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


def apply_to_job(action: str, job: Job) -> ActionResult:
    """Apply `action` to one job."""
    [outcome] = ACTIONS[action].act([job])
    return outcome


def apply_to_jobs(action: str, task_ids: Iterable[str]) -> BulkResult:
    """Apply `action` to the jobs of these tasks, at most MAX_BULK_JOBS; unknown ids are skipped."""
    result = BulkResult()
    for outcomes in apply_in_batches(ACTIONS[action].act, list(task_ids)[:MAX_BULK_JOBS]):
        for outcome in outcomes.values():
            if outcome.job is not None:
                result.count(outcome)
    return result


def apply_in_batches(
    act: BatchAction,
    task_ids: Iterable[str],
    size: int | None = None,
    is_stopped: Callable[[], bool] = lambda: False,
) -> Iterator[dict[str, ActionResult]]:
    """Call `act` for the jobs of these tasks in batches; yield the outcomes of each batch, by the ids of the tasks.

    `size` is the number of jobs in a batch, by default BATCH. Before each batch, `is_stopped` says whether to end. At
    the end, the messages of the jobs that were cancelled are removed from their queues: in one pass, since each pass
    reads a whole queue.
    """
    ids, size = list(dict.fromkeys(task_ids)), size or BATCH
    cancelled: dict[str, set[str]] = defaultdict(set)
    try:
        for start in range(0, len(ids), size):
            if is_stopped():
                return
            outcomes = _apply_to_batch(act, ids[start : start + size])
            for job in (outcome.job for outcome in outcomes.values() if outcome.done and outcome.job):
                if job.state == states.REVOKED:
                    cancelled[job.current.queue].add(job.current.id)
            yield outcomes
    finally:
        try:
            remove_messages(cancelled)
        except RedisError as error:
            logger.warning("Redis is unavailable (%s); workers drop the messages of the cancelled jobs", error)


def _apply_to_batch(act: BatchAction, task_ids: Sequence[str]) -> dict[str, ActionResult]:
    found = find_jobs_of_steps(task_ids)
    jobs = list({job.id: job for job in found.values()}.values())
    ids = {task_id: job.id for task_id, job in found.items()}
    outcomes = dict(zip([job.id for job in jobs], act(jobs), strict=True))
    unknown = ActionResult(False, "there is no such task.", None)
    return {task_id: outcomes[ids[task_id]] if task_id in ids else unknown for task_id in task_ids}


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
    [job] = _reload([task_id])
    return job
