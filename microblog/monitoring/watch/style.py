"""How things look and what they are called on the screen, in one place."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from rich.text import Text

from microblog.monitoring import display
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
    """`text` on one line, without what could steer the terminal, cut off where its place ends."""
    return Text(display.one_line(text), style=style, no_wrap=True, overflow="ellipsis")


def state(name: str) -> Text:
    """A task's state, in its colour."""
    return clean(name, STATE_STYLES.get(name, ""))


def length(value: timedelta | None) -> str:
    """A length of time in whole seconds, such as ``12 s`` or ``4 m 05 s``; nothing for None."""
    if value is None:
        return ""
    seconds = max(0, int(value.total_seconds()))
    return f"{seconds} s" if seconds < 60 else display.duration(timedelta(seconds=seconds))


def since(then: datetime | None, now: datetime) -> str:
    """How long ago `then` was."""
    return length(now - then) if then else ""


def sparkline(values: Sequence[int]) -> str:
    """One character for each value, as high as it is beside the largest."""
    largest = max(values, default=0)
    if not largest:
        return _BARS[0] * len(values)
    return "".join(_BARS[round(value * (len(_BARS) - 1) / largest)] for value in values)


def count(number: int, one: str, many: str = "") -> str:
    """``1 job``, ``12,003 jobs``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
