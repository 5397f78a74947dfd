"""Tasks that operators may run by hand: those that beat runs, and those marked as `runnable`."""

from __future__ import annotations

import inspect
from typing import Any

from flask import current_app

from microblog.extensions import db
from microblog.jobs import job as jobs
from microblog.jobs.job import Job
from microblog.taskqueue.launch import launch


class NotRunnable(Exception):
    """There is no such task, or it is not one to be run by hand; the sentence tells which are."""


class WrongArguments(Exception):
    """The arguments do not fit the task; the sentence tells how."""


def runnable() -> dict[str, Any]:
    """The tasks that may be run by hand, by their names."""
    registered = current_app.extensions["celery"].tasks
    return {
        name: task
        for name, task in sorted(registered.items())
        if getattr(task, "every", "") or getattr(task, "runnable", False)
    }


def arguments(task: Any) -> str:
    """The arguments that `task` takes, as in its signature: ``(batch, limit=10)``."""
    signature = inspect.signature(task.run)
    bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in signature.parameters.values()]
    return str(signature.replace(parameters=bare, return_annotation=inspect.Signature.empty))


def run(name: str, args: list[Any], kwargs: dict[str, Any]) -> Job:
    """Launch the task `name` as a job of the system's own, and commit. Raises NotRunnable, WrongArguments."""
    tasks = runnable()
    if name not in tasks:
        raise NotRunnable(f"{name} is not a task to be run by hand; these are: {', '.join(tasks)}.")
    first, *behind = [tasks[name], *(tasks[name].app.tasks[following] for following in tasks[name].followed_by)]
    # Its outcome is wanted, though beat, which runs it every few seconds, has no use for it.
    steps = [step.set(ignore_result=False) for step in (first.s(*args, **kwargs), *(task.s() for task in behind))]
    try:
        task_id = launch(steps).id
    except TypeError as error:
        db.session.rollback()
        raise WrongArguments(f"{name} takes {arguments(first)}: {error}.") from None
    db.session.commit()
    db.session.expire_all()
    job = jobs.find(task_id)
    if job is None:
        raise LookupError(task_id)
    return job
