"""Events that an open page missed, read from the database for the polling fallback and for a stream's replay.

A package registers further topics and missed events of a page. Its function gets the reader's id and the arguments of
the request, and returns None if they do not concern it ::

    @provides_events("posts")
    def post_events_for_page(reader_id: int, arguments: Mapping[str, str]) -> EventSource | None: ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from microblog.database import database_time
from microblog.extensions import db
from microblog.jobs.models import Job, jobs_changed_since, progress_of
from microblog.notifications import unread_counts
from microblog.notifications.models import Notification
from microblog.notifications.services import notifications_changed_since
from microblog.registry import Registry
from microblog.taskqueue.interface import TaskChange

Event = dict[str, Any]


@dataclass(frozen=True, slots=True)
class EventSource:
    """`topics` to subscribe to, and `missed`: returns the events after a time (seconds since 1970) in any order."""

    topics: Iterable[str]
    missed: Callable[[float], list[Event]]


SourceProvider = Callable[[int, Mapping[str, str]], EventSource | None]

_providers = Registry[SourceProvider]()
provides_events = _providers.register


def sources_for_page(reader_id: int, arguments: Mapping[str, str]) -> list[EventSource]:
    """Return the event sources for a user's page. Raises werkzeug's BadRequest if `arguments` are invalid."""
    found = (_providers[kind](reader_id, arguments) for kind in sorted(_providers))
    return [source for source in found if source is not None]


def events_since(user_id: int, since: float) -> list[Event]:
    """Return the user's events after `since` (seconds since 1970), oldest first, one per subject.

    Raises ValueError if `since` is not a valid time.
    """
    start = time_from_seconds(since)
    notified = [event_from_notification(row) for row in notifications_changed_since(user_id, start)]
    events = [_event_of_job(job) for job in jobs_changed_since(user_id, start)] + notified
    if notified:  # the unread counts may have changed as well
        events += unread_count_events(user_id)
    return sorted(events, key=lambda event: float(event["timestamp"]))


@provides_events("unread")
def unread_counts_for_page(user_id: int, arguments: Mapping[str, str]) -> EventSource | None:
    """Return a source of the unread counts that differ from those of a page, such as its ``unread-messages``.

    A count may change without an event after the page's last one: reading on another page leaves no event.
    """
    shown = {
        name: arguments[f"unread-{name}"] for name in unread_counts.counter_names() if f"unread-{name}" in arguments
    }
    if not shown:
        return None

    def missed(_since: float) -> list[Event]:
        counts = [(event, str(event["data"]["count"])) for event in unread_count_events(user_id)]
        return [event for event, count in counts if shown.get(event["subject"], count) != count]

    return EventSource((), missed)


def time_from_seconds(seconds: float) -> datetime:
    """Return the aware time `seconds` after 1970. Raises ValueError if it is out of range."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, OSError) as error:
        raise ValueError(str(error)) from error


def event_from_change(change: TaskChange) -> Event:
    """Return the event of a task change, for open pages."""
    return _task_event(change.root_id, change.position, change.state, change.progress, change.at)


def event_from_notification(row: Notification) -> Event:
    """Return the event of a notification that was written or read, for open pages; its name is the row's kind."""
    data = {**row.payload, "id": row.id, "read": row.read_at is not None}
    return _event(row.name, row.subject, row.updated_at, data)


def unread_count_events(user_id: int) -> list[Event]:
    """Return the events of a user's current unread counts.

    Their timestamp is taken before counting, so that of two such events the later one includes all changes of the
    earlier one.
    """
    now = database_time(db.session)
    return [
        _event("unread", name, now, {"count": count}) for name, count in unread_counts.unread_counts(user_id).items()
    ]


def _event_of_job(job: Job) -> Event:
    step = job.current
    return _task_event(job.id, step.position, step.state, progress_of(step), job.changed_at)


def _task_event(root_id: str, position: int, state: str, progress: dict[str, Any] | None, at: datetime) -> Event:
    data = {"id": root_id, "position": position, "state": state, "progress": progress}
    return _event("task", root_id, at, data)


def _event(name: str, subject: str, at: datetime, data: dict[str, Any]) -> Event:
    return {"name": name, "subject": subject, "timestamp": at.timestamp(), "data": data}
