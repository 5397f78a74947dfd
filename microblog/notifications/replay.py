"""Events that an open page missed, read from the database for the polling fallback and for a stream's replay.

A package registers further topics and missed events of a page. The function gets the reader's id and the arguments of
the request, and returns None if they do not concern it ::

    @provides_events("posts")
    def post_events_for_page(reader_id: int, arguments: Mapping[str, str]) -> EventSource | None: ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from microblog.clock import utcnow
from microblog.jobs.models import Job, jobs_changed_since, progress_of
from microblog.notifications import unread_counts
from microblog.notifications.models import Notification
from microblog.notifications.services import notifications_changed_since
from microblog.taskqueue.interface import TaskChange

Event = dict[str, Any]


@dataclass(frozen=True, slots=True)
class EventSource:
    """`topics` to listen to, and `missed`: the events after a time (seconds since 1970), in any order."""

    topics: Iterable[str]
    missed: Callable[[float], list[Event]]


SourceProvider = Callable[[int, Mapping[str, str]], EventSource | None]

_providers: dict[str, SourceProvider] = {}


def provides_events(kind: str) -> Callable[[SourceProvider], SourceProvider]:
    """Register the function that finds what there is of this kind for a page."""

    def register(offer: SourceProvider) -> SourceProvider:
        _providers[kind] = offer
        return offer

    return register


def sources_for_page(reader_id: int, arguments: Mapping[str, str]) -> list[EventSource]:
    """Return the sources of events for a reader's page. Raises werkzeug's BadRequest if `arguments` make no sense."""
    found = (_providers[kind](reader_id, arguments) for kind in sorted(_providers))
    return [source for source in found if source is not None]


def events_since(user_id: int, since: float) -> list[Event]:
    """The user's events after `since` (seconds since 1970), oldest first, one per subject.

    Raises ValueError if `since` is no time.
    """
    moment = time_from_seconds(since)
    told = [event_from_notification(row) for row in notifications_changed_since(user_id, moment)]
    events = [_event_of_job(job) for job in jobs_changed_since(user_id, moment)] + told
    if told:  # then the numbers may have changed, too
        events += unread_count_events(user_id)
    return sorted(events, key=lambda event: float(event["timestamp"]))


@provides_events("unread")
def unread_counts_for_page(user_id: int, arguments: Mapping[str, str]) -> EventSource | None:
    """The badges that have another number by now than a page shows: that of `messages` is its ``unread-messages``.

    A number may change without any event after the page's last: what was read on another page has none.
    """
    shown = {
        name: arguments[f"unread-{name}"] for name in unread_counts.counter_names() if f"unread-{name}" in arguments
    }
    if not shown:
        return None

    def missed(_since: float) -> list[Event]:
        numbers = [(event, str(event["data"]["count"])) for event in unread_count_events(user_id)]
        return [event for event, number in numbers if shown.get(event["subject"], number) != number]

    return EventSource((), missed)


def time_from_seconds(seconds: float) -> datetime:
    """The aware time `seconds` after 1970. Raises ValueError if there is no such time."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, OSError) as error:
        raise ValueError(str(error)) from error


def event_from_change(change: TaskChange) -> Event:
    """The event that tells open pages of a change, as it happens."""
    return _task_event(change.root_id, change.position, change.state, change.progress, change.at)


def event_from_notification(row: Notification) -> Event:
    """The event that tells open pages of a notification that was written or read: its name is the row's kind."""
    data = {**row.payload, "id": row.id, "read": row.read_at is not None}
    return _event(row.name, row.subject, row.updated_at, data)


def unread_count_events(user_id: int) -> list[Event]:
    """The numbers of a user's badges, as they are now.

    Their time is that before they were counted: of two such events, the later one knows all that the earlier knew.
    """
    now = utcnow()
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
