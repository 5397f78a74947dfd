"""How a command is told since when: ``90m``, ``24h``, ``7d``, or a time."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from microblog.clock import utcnow

_AGE = re.compile(r"(\d{1,6})\s*([smhdw])", re.I)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class Since(click.ParamType[datetime]):
    """A time in the past: an age such as ``24h``, or a date with or without a time, in UTC unless it says otherwise."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> datetime:
        """The time, aware."""
        if isinstance(value, datetime):
            return value
        try:
            if age := _AGE.fullmatch(value.strip()):
                return utcnow() - timedelta(**{_UNITS[age[2].lower()]: int(age[1])})
            time = datetime.fromisoformat(value)
            return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is neither an age such as 90m, 24h or 7d nor a time such as 2026-01-31T12:00.")
