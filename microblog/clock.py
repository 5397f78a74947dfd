"""The current time of this machine, always aware and in UTC, and a clock for durations.

The clocks of machines differ: what processes compare with each other is in the time of the database (DatabaseTime).
"""

from __future__ import annotations

import time
from datetime import UTC, datetime

# Linux stops CLOCK_MONOTONIC while the machine is suspended, macOS does not.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def utcnow() -> datetime:
    """Return the current time, aware, in UTC."""
    return datetime.now(UTC)


def elapsed() -> float:
    """Return the seconds since an unspecified time, by a clock that is never set and runs in a suspended machine."""
    return time.clock_gettime(_CLOCK)


def iso(time: datetime | None) -> str | None:
    """Return `time` in ISO 8601, ending in Z, or None if it is None."""
    return time.isoformat().replace("+00:00", "Z") if time else None
