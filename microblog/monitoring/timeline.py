"""What happened to a job, in order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from microblog.jobs.job import Job
from microblog.taskqueue import states
from microblog.taskqueue.models import Task

ENDED = {states.SUCCESS: "succeeded", states.FAILURE: "failed", states.REVOKED: "cancelled"}


@dataclass(frozen=True)
class Event:
    """Something that happened to a step: `what`, when, and how long after the job was created."""

    at: datetime
    after: timedelta
    step: Task
    what: str


def events_of(job: Job) -> list[Event]:
    """The events of a job's steps that have left a time in their rows, oldest first; also a retry that is yet to come.

    `what` is one of created, published, first started, asked to stop, to be tried again, succeeded, failed, cancelled.
    """
    events = (Event(at, at - job.root.created_at, step, what) for step in job.steps for what, at in _times(step))
    return sorted(events, key=lambda event: (event.at, event.step.position))


def _times(step: Task) -> Iterator[tuple[str, datetime]]:
    happened = {
        "created": step.created_at,
        "published": step.published_at,
        "first started": step.started_at,
        "asked to stop": step.cancel_requested_at,
        "to be tried again": step.eta if step.state == states.RETRY else None,
        ENDED.get(step.state, ""): step.finished_at,
    }
    for what, at in happened.items():
        if at is not None:
            yield what, at
