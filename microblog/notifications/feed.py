"""What an open page may have missed, from the database: for the polling fallback and for a stream's replay."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from microblog.jobs import job as jobs
from microblog.jobs.job import Job, progress_of
from microblog.taskqueue.signals import TaskChange


def changes_since(user_id: int, since: float) -> list[dict[str, Any]]:
    """The user's events after `since` (seconds since 1970), oldest first, one per subject.

    Raises ValueError if `since` is no time.
    """
    return [_event_of_job(job) for job in jobs.changed_since(user_id, instant(since))]


def instant(seconds: float) -> datetime:
    """The aware time `seconds` after 1970. Raises ValueError if there is no such time."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, OSError) as error:
        raise ValueError(str(error)) from error


def event_of_change(change: TaskChange) -> dict[str, Any]:
    """The event that tells open pages of a change, as it happens."""
    return _event(change.root_id, change.position, change.state, change.progress, change.at)


def _event_of_job(job: Job) -> dict[str, Any]:
    step = job.current
    return _event(job.id, step.position, step.state, progress_of(step), job.changed_at)


def _event(root_id: str, position: int, state: str, progress: dict[str, Any] | None, at: datetime) -> dict[str, Any]:
    return {
        "name": "task",
        "subject": root_id,
        "timestamp": at.timestamp(),
        "data": {"id": root_id, "position": position, "state": state, "progress": progress},
    }
