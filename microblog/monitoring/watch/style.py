"""Labels, colours and number formats of the screen."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from rich.text import Text

from microblog.monitoring import output
from microblog.taskqueue import states

STATE_STYLES = {
    states.PENDING: "dim",
    states.STARTED: "cyan",
    states.PROGRESS: "cyan",
    states.RETRY: "magenta",
    states.SUCCESS: "green",
    states.FAILURE: "bold red",
    states.REVOKED: "yellow",
}
GOOD, BAD, DIM, STRONG = "green", "bold red", "dim", "bold"
CURSOR = "bold on grey23"
BORDER, KEY = "grey50", "bold cyan"

_BARS = "▁▂▃▄▅▆▇█"


def clean(text: str, style: str = "") -> Text:
    """Return `text` on one line, without control characters, truncated to the available space."""
    return Text(output.one_line(text), style=style, no_wrap=True, overflow="ellipsis")


def state(name: str) -> Text:
    """Return a task's state in its colour."""
    return clean(name, STATE_STYLES.get(name, ""))


def length(value: timedelta | None) -> str:
    """Format a duration briefly: ``12s``, ``4m05s``, ``3h07m``, ``2d03h``; an empty string for None."""
    if value is None:
        return ""
    minutes, second = divmod(max(0, int(value.total_seconds())), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days}d{hour:02}h"
    if hours:
        return f"{hours}h{minute:02}m"
    return f"{minutes}m{second:02}s" if minutes else f"{second}s"


def since(then: datetime | None, now: datetime) -> str:
    """Format the time since `then` like length(); an empty string for None."""
    return length(now - then) if then else ""


def sparkline(values: Sequence[int]) -> str:
    """Return one bar per value, with a height relative to the largest value."""
    largest = max(values, default=0)
    if not largest:
        return _BARS[0] * len(values)
    return "".join(_BARS[round(value * (len(_BARS) - 1) / largest)] for value in values)
