"""The current time, always aware and in UTC."""

from __future__ import annotations

from datetime import UTC, datetime


def utcnow() -> datetime:
    """The time now, aware, in UTC."""
    return datetime.now(UTC)


def iso(time: datetime | None) -> str | None:
    """A time as text: ISO 8601 in UTC, ending in Z; None for none."""
    return time.isoformat().replace("+00:00", "Z") if time else None
