"""Parts of the screen: labels, colours, durations, a progress bar, a scrolled text and the help text."""

from __future__ import annotations

from datetime import datetime, timedelta

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.progress_bar import ProgressBar
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from microblog.monitoring import output
from microblog.monitoring.watch.ui_state import UiState

GOOD, BAD, DIM, STRONG = "green", "bold red", "dim", "bold"
CURSOR = "bold on grey23"
BORDER, KEY = "grey50", "bold cyan"

KEYS = {
    "↑ ↓, k j": "select a job; also Page up, Page down, Home and End",
    "Enter": "open the job: its steps, error and traceback",
    "Esc": "back; in the list: clear the filter",
    "/": "filter: only jobs that contain each of these words (in user, task, state, worker, id, …)",
    "s, S": "sort by the next column; reverse the order",
    "Tab, v": "the next view: unfinished jobs, failed ones, all",
    "c": "cancel the job (asks first): a waiting job at once, a running job at its next progress step",
    "r": "retry a failed or cancelled job (asks first); the retry is a new job",
    "Ctrl-L": "redraw the screen",
    "q, Ctrl-C": "quit",
}
NOTES = (
    "A worker is up while it sends heartbeats; the filled boxes are its busy processes.",
    "Next to each queue: how long its oldest message has been waiting.",
    "Progress bars follow the engine's events, five times a second; while Redis is unavailable, the Task table, once a "
    "second. While the database is unavailable, only data from the workers' events is shown.",
    "A job that has ended stays in the list of unfinished jobs for 15 seconds.",
)


def clean(text: str, style: str = "") -> Text:
    """Return `text` on one line, without control characters, truncated to the available space."""
    return Text(output.one_line(text), style=style, no_wrap=True, overflow="ellipsis")


def state(name: str) -> Text:
    """Return a task's state in its colour."""
    return clean(name, output.STATE_COLOURS.get(name, DIM))


def duration(length: timedelta | None) -> str:
    """Return format_duration() of `length`; an empty string for None."""
    return "" if length is None else output.format_duration(length)


def since(then: datetime | None, now: datetime) -> str:
    """Return the time since `then` as duration() does."""
    return duration(now - then if then else None)


def bar(percent: int, ended: bool = False) -> RenderableType:
    """Return a bar that fills the available width, followed by the percentage."""
    row = Table.grid(expand=True, padding=(0, 1, 0, 0))
    row.add_column(ratio=1)
    row.add_column(width=4, justify="right", no_wrap=True)
    complete = "green" if ended else "cyan"
    row.add_row(
        ProgressBar(total=100, completed=percent, style="grey37", complete_style=complete, finished_style="green"),
        Text(f"{percent}%"),
    )
    return row


class Scrolled:
    """Shows `body` from line ``ui.scroll`` on, and limits that number to the length of the text."""

    def __init__(self, body: RenderableType, ui: UiState) -> None:
        self._body = body
        self._ui = ui

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = console.render_lines(self._body, options.update(height=None), pad=False)
        self._ui.scroll = min(self._ui.scroll, max(0, len(lines) - self._ui.page))
        for line in lines[self._ui.scroll : self._ui.scroll + self._ui.page]:
            yield from line
            yield Segment.line()


def help_lines() -> RenderableType:
    """Return the whole help text."""
    keys = Table.grid(padding=(0, 2, 0, 0))
    keys.add_column(no_wrap=True, style=KEY)
    keys.add_column()
    for key, description in KEYS.items():
        keys.add_row(key, description)
    return Group(keys, *[Text(f"\n{note}") for note in NOTES])
