"""Launch a job: its rows and its message as one unit; and publish the messages of tasks that have a row."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from celery import Signature
from celery.utils import uuid
from flask_babel import force_locale, get_locale
from kombu.utils.json import dumps, loads
from sqlalchemy.orm import Session, SessionTransaction, make_transient_to_detached

from microblog import logs
from microblog.database import AutocommitExecutor, LogDatabaseErrors
from microblog.extensions import BROKER_UNAVAILABLE, db
from microblog.registry import Registry
from microblog.taskqueue import states
from microblog.taskqueue.errors import AlreadyRunning
from microblog.taskqueue.interface import TaskChange, celery_app, describe_ids, task_changed
from microblog.taskqueue.models import Task
from microblog.taskqueue.transitions import insert_tasks, mark_published, mark_unpublished

logger = logging.getLogger(__name__)

_jobs = Registry[Callable[..., Signature]]()
#: Registers a job of several steps by the name of its first task: a function that takes the job's arguments and
#: returns a chain. A job of one step needs no registration.
register_job = _jobs.register


def build_job(name: str, /, *args: Any, **kwargs: Any) -> Signature:
    """Return the signature of the job `name`. Raises LookupError if there is no job and no task of that name."""
    if name in _jobs:
        return _jobs[name](*args, **kwargs)
    task = celery_app().tasks.get(name)
    if task is None:
        raise LookupError(f"no job and no task is called {name!r}")
    signature: Signature = task.s(*args, **kwargs)
    return signature


def launch_task(name: str, description: str, *args: Any, user_id: int | None = None, **kwargs: Any) -> Task:
    """Launch the job `name` with these arguments; see build_job() and launch()."""
    return launch(build_job(name, *args, **kwargs), description=description, user_id=user_id)


def launch(
    job: Signature, *, description: str = "", user_id: int | None = None, retried_from: str | None = None
) -> Task:
    """Start a job: the signature of a task, or a chain of such signatures.

    Writes one row for each step, with a fixed id, in the transaction of the caller. The job is published when that
    commits; a rollback leaves nothing behind. An unavailable broker is not an error: the rows stay unpublished and
    reconcile publishes them. `description` is shown to the user for the first step (default: its title).

    Returns the first step's row. Raises AlreadyRunning if the user has an unfinished job with a step of the same
    name, and TypeError if the arguments do not fit the first task or cannot be sent, or if the job cannot have rows.
    """
    rows = new_rows(job, description=description, user_id=user_id, retried_from=retried_from)
    [root] = launch_jobs([rows])
    if root is None:
        raise AlreadyRunning(find_running(rows))
    return root


def launch_jobs(jobs: Sequence[list[dict[str, Any]]]) -> list[Task | None]:
    """Start several jobs as launch() does, with one statement, from the rows that new_rows() has made.

    Returns the first row of each job, or None if its user has an unfinished job with a step of the same name.
    """
    session = db.session()
    created = insert_tasks(session, jobs) if jobs else {}
    roots: list[Task | None] = []
    for rows in jobs:
        created_at = created.get(rows[0]["id"])
        if created_at is None:
            roots.append(None)
            continue
        session.info.setdefault("launched", []).append(rows)
        rows[0] |= {"created_at": created_at, "updated_at": created_at}
        root = Task(**rows[0])
        make_transient_to_detached(root)
        session.add(root)
        roots.append(root)
    return roots


def find_running(rows: list[dict[str, Any]]) -> Task | None:
    """Return an unfinished task because of which launch_jobs() did not start the job with these rows."""
    names = [row["name"] for row in rows]
    query = sa.select(Task).where(Task.user_id == rows[0]["user_id"], Task.name.in_(names), Task.unfinished)
    return db.session.scalar(query.limit(1))


def steps_of(job: Signature) -> list[Signature]:
    """Return the signatures of a job's tasks in order. Raises TypeError if rows cannot represent the job."""
    if not isinstance(job, Signature):
        raise TypeError(f"a job is the signature of a task or a chain, not {job!r}")
    if job.options.get("link") or job.options.get("link_error"):
        raise TypeError(f"{job!r} has a callback, which would have no row: make it a step of a chain")
    if delays := {"countdown", "eta", "expires"} & job.options.keys():
        raise TypeError(f"{job!r} has the option {min(delays)}: a job begins as soon as a worker is free")
    if job.options.get("serializer", "json") != "json":
        raise TypeError(f"{job!r} has the serializer {job.options['serializer']}: messages are JSON only")
    if job.subtask_type == "chain":
        if job.options or not job.tasks:
            raise TypeError(
                f"{job!r} has options or no tasks: set options on the tasks of a chain, which has at least one"
            )
        return [step for part in job.tasks for step in steps_of(part)]
    if job.subtask_type is not None:
        raise TypeError(
            f"a job is a task or a chain of tasks; {job!r} is a {job.subtask_type}, whose tasks have no order"
        )
    task = celery_app().tasks.get(job.task) or job.type
    if not hasattr(task, "claim"):
        raise TypeError(f"{job.task} has a base class of its own: without that of this application it has no row")
    if task.expires:
        raise TypeError(f"{job.task} expires: a job runs, however long it waits")
    queues = [queue.name for queue in celery_app().conf.task_queues]
    if _queue_of(job) not in queues:
        raise TypeError(f"{job!r} has the queue {_queue_of(job)}, which is none of {', '.join(queues)}")
    soft, hard = (job.options.get(name, getattr(task, name)) for name in ("soft_time_limit", "time_limit"))
    if soft and hard and soft > hard:
        raise TypeError(f"{job!r} has a soft time limit of {soft} s, above its hard limit of {hard} s")
    return [job]


def new_rows(
    job: Signature, *, description: str = "", user_id: int | None = None, retried_from: str | None = None
) -> list[dict[str, Any]]:
    """Return the rows of a new job, one for each step; launch() explains the arguments. Raises TypeError."""
    steps = steps_of(job)
    steps[0].type.__header__(*steps[0].args, **steps[0].kwargs)  # raises TypeError for wrong arguments
    ids = [uuid() for _ in steps]
    # A retried job keeps the language of its user, even if an operator retries it.
    locale = (steps[0].options.get("headers") or {}).get("locale") or str(get_locale() or "en")
    headers = {"request_id": logs.request_id(), "locale": locale, "has_row": True}
    rows = []
    for position, (task_id, step) in enumerate(zip(ids, steps, strict=True)):
        # The root is explicit, since Celery would use the task that publishes the message, such as reconcile.
        task = step.type
        # The queue is explicit, too: a process of another release may not know which queue the task has.
        queue = _queue_of(step)
        # A row needs the result, also of a task whose runs by beat do not.
        options = {"task_id": task_id, "root_id": ids[0], "headers": headers, "queue": queue, "ignore_result": False}
        signature = {**step, "options": step.options | options}
        with force_locale(locale):
            title = str(task.title)
        rows.append(
            {
                "id": task_id,
                "root_id": ids[0],
                "position": position,
                "user_id": user_id,
                "name": step.task,
                "description": (description if position == 0 else "") or title or step.task,
                "state": states.PENDING,
                "queue": queue,
                "signature": _as_json(signature),
                "retried_from": retried_from if position == 0 else None,
            }
        )
    return rows


def _queue_of(step: Signature) -> str:
    name: str = celery_app().amqp.router.route(step.options, step.task)["queue"].name
    return name


def _as_json(signature: dict[str, Any]) -> dict[str, Any]:
    """Return `signature` as in a message, where kombu encodes times and other values. Raises TypeError."""
    try:
        text = dumps(signature, allow_nan=False)  # type: ignore[no-untyped-call]
        loads(text)  # type: ignore[no-untyped-call]  # as a worker does
        encoded: dict[str, Any] = json.loads(text)
    except Exception as error:  # of the decoder of any type
        raise TypeError(f"the arguments of {signature['task']} cannot be sent as JSON: {error}") from error
    return encoded


@sa.event.listens_for(db.session, "after_commit")
def _confirm_launched(session: Session) -> None:
    if not session.in_nested_transaction():
        session.info["committed"] = session.info.pop("launched", [])


@sa.event.listens_for(db.session, "after_transaction_end")
def _publish_committed(session: Session, transaction: SessionTransaction) -> None:
    """Publish the committed jobs: now the session has returned its connection, of which there may be only one."""
    launched = session.info.pop("committed", [])
    if not launched:
        return
    app = celery_app()
    published = publish_jobs(app.executor, [[row["signature"] for row in rows] for rows in launched])
    for first in (rows[0] for rows in launched):
        if first["id"] in published:
            change = TaskChange(
                first["id"], first["id"], 0, first["user_id"], states.PENDING, None, first["updated_at"]
            )
            task_changed.send(app, change=change)


@sa.event.listens_for(db.session, "after_rollback")
def _discard_launched(session: Session) -> None:
    if not session.in_nested_transaction():  # publish() skips what a savepoint rolled back: it has no row
        session.info.pop("launched", None)


def publish(
    executor: AutocommitExecutor,
    signatures: Sequence[dict[str, Any]],
    *results: Any,
    expected_published_at: datetime | None = None,
) -> bool:
    """Publish what remains of a job: its next step, with the following steps chained to it.

    `signatures` are the rows' own, in order; `results` holds the previous step's result, if there is one. Of several
    callers only one publishes: the one that finds `published_at` as expected, None for the first time. Returns whether
    this call did. If the broker or the database fails, it returns False and reconcile publishes the job later.
    """
    return bool(publish_jobs(executor, [signatures], *results, expected_published_at=expected_published_at))


def publish_jobs(
    executor: AutocommitExecutor,
    jobs: Sequence[Sequence[dict[str, Any]]],
    *results: Any,
    expected_published_at: datetime | None = None,
) -> set[str]:
    """As publish(), for several jobs that have been retried as often; returns the ids of the tasks that were published.

    One statement marks all of them. Once the broker is unavailable, no other message is tried.
    """
    by_id = {signatures[0]["options"]["task_id"]: signatures for signatures in jobs}
    retries = jobs[0][0]["options"].get("retries", 0)
    sent: set[str] = set()
    with LogDatabaseErrors(logger, "%s will be published later", describe_ids(list(by_id))):
        marked = mark_published(executor, list(by_id), expected_published_at, retries)
        try:
            for task_id in filter(marked.__contains__, by_id):
                if _send(task_id, by_id[task_id], results, marked[task_id]):
                    sent.add(task_id)
        except BROKER_UNAVAILABLE as error:
            unsent = list(marked.keys() - sent)
            logger.warning("the broker is unavailable (%s); %s will be published later", error, describe_ids(unsent))
        if unsent := list(marked.keys() - sent):
            # If this fails, too, the messages are treated as lost.
            mark_unpublished(executor, unsent, marked[unsent[0]])
    return sent


def _send(task_id: str, signatures: Sequence[dict[str, Any]], results: tuple[Any, ...], published_at: datetime) -> bool:
    """Send the message that mark_published() has announced; return False if it cannot be sent.

    Raises one of BROKER_UNAVAILABLE.
    """
    try:
        first, *following = (Signature.from_dict(signature) for signature in signatures)
        # As chain(…).apply_async() does after it has assigned ids, which these steps already have.
        # The oldest message of a queue tells how far it has been consumed (queues.consumed_until).
        headers = (first.options.get("headers") or {}) | {"published_at": published_at.isoformat()}
        first.apply_async(results, chain=following[::-1] or None, headers=headers)
    except BROKER_UNAVAILABLE:
        raise
    except Exception:  # the transaction is committed, so the launch must not seem to fail
        logger.exception("the message of %s cannot be sent; it will be published later", task_id)
        return False
    return True
