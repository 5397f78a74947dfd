"""What an open page may have missed, from the database: for the polling fallback and for a stream's replay."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from microblog.clock import utcnow
from microblog.jobs import job as jobs
from microblog.jobs.job import Job, progress_of
from microblog.notifications import badges, rows, sources
from microblog.notifications.models import Notification
from microblog.notifications.sources import Event, Source
from microblog.taskqueue.signals import TaskChange


def changes_since(user_id: int, since: float) -> list[Event]:
    """The user's events after `since` (seconds since 1970), oldest first, one per subject.

    Raises ValueError if `since` is no time.
    """
    moment = instant(since)
    told = [event_of_row(row) for row in rows.changed_since(user_id, moment)]
    events = [_event_of_job(job) for job in jobs.changed_since(user_id, moment)] + told
    if told:  # then the numbers may have changed, too
        events += events_of_badges(user_id)
    return sorted(events, key=lambda event: float(event["timestamp"]))


@sources.offers("unread")
def badges_of_page(user_id: int, arguments: Mapping[str, str]) -> Source | None:
    """The badges that have another number by now than a page shows: that of `messages` is its ``unread-messages``.

    A number may change without any event after the page's last: what was read on another page has none.
    """
    shown = {name: arguments[f"unread-{name}"] for name in badges.names() if f"unread-{name}" in arguments}
    if not shown:
        return None

    def missed(_since: float) -> list[Event]:
        numbers = [(event, str(event["data"]["count"])) for event in events_of_badges(user_id)]
        return [event for event, number in numbers if shown.get(event["subject"], number) != number]

    return Source((), missed)


def instant(seconds: float) -> datetime:
    """The aware time `seconds` after 1970. Raises ValueError if there is no such time."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, OSError) as error:
        raise ValueError(str(error)) from error


def event_of_change(change: TaskChange) -> Event:
    """The event that tells open pages of a change, as it happens."""
    return _task_event(change.root_id, change.position, change.state, change.progress, change.at)


def event_of_row(row: Notification) -> Event:
    """The event that tells open pages of a notification that was written or read: its name is the row's kind."""
    data = {**row.payload, "id": row.id, "read": row.read_at is not None}
    return _event(row.name, row.subject, row.updated_at, data)


def events_of_badges(user_id: int) -> list[Event]:
    """The numbers of a user's badges, as they are now.

    Their time is that before they were counted: of two such events, the later one knows all that the earlier knew.
    """
    now = utcnow()
    return [_event("unread", name, now, {"count": count}) for name, count in badges.unread(user_id).items()]


def _event_of_job(job: Job) -> Event:
    step = job.current
    return _task_event(job.id, step.position, step.state, progress_of(step), job.changed_at)


def _task_event(root_id: str, position: int, state: str, progress: dict[str, Any] | None, at: datetime) -> Event:
    data = {"id": root_id, "position": position, "state": state, "progress": progress}
    return _event("task", root_id, at, data)


def _event(name: str, subject: str, at: datetime, data: dict[str, Any]) -> Event:
    return {"name": name, "subject": subject, "timestamp": at.timestamp(), "data": data}
