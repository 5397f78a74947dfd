"""The current time, always aware and in UTC."""

from __future__ import annotations

from datetime import UTC, datetime


def utcnow() -> datetime:
    """Return the current time, aware, in UTC."""
    return datetime.now(UTC)


def iso(time: datetime | None) -> str | None:
    """Return `time` in ISO 8601, ending in Z, or None if it is None."""
    return time.isoformat().replace("+00:00", "Z") if time else None
