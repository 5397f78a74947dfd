"""Help view: the keys, and the meaning of the columns."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from microblog.monitoring.watch import style

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


def help_lines() -> RenderableType:
    """Return the whole help text."""
    keys = Table.grid(padding=(0, 2, 0, 0))
    keys.add_column(no_wrap=True, style=style.KEY)
    keys.add_column()
    for key, description in KEYS.items():
        keys.add_row(key, description)
    return Group(keys, *[Text(f"\n{note}") for note in NOTES])
