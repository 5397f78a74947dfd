"""Help view: the keys, and the meaning of the columns."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from microblog.monitoring.watch import style

KEYS = {
    "↑ ↓, k j": "choose a job; Page up and down, Home and End too",
    "Enter": "open the job: its steps, error and traceback",
    "Esc": "back; in the list: no filter",
    "/": "filter: only jobs that have each of these words somewhere (user, task, state, worker, id, …)",
    "s, S": "sort by the next column; the other way round",
    "Tab, v": "the next view: unfinished jobs, failed ones, all",
    "c": "cancel the job (asks first): what waits ends at once, what runs at its next progress step",
    "r": "try a job again that failed or was cancelled (asks first); it becomes a new job",
    "Ctrl-L": "draw the screen anew",
    "q, Ctrl-C": "quit",
}
NOTES = (
    "Workers are there while they give signs of life; the boxes are the processes that are busy.",
    "Behind each queue: for how long the message whose turn is next has been waiting.",
    "Bars move with the engine's announcements, five times a second; while Redis is away with the Task table, once a "
    "second. While the database is away, what workers say is all that there is.",
    "A job that ends stays among the unfinished ones for a quarter of a minute.",
)


def help_lines() -> RenderableType:
    """The help, as long as it is."""
    keys = Table.grid(padding=(0, 2, 0, 0))
    keys.add_column(no_wrap=True, style=style.KEY)
    keys.add_column()
    for key, what in KEYS.items():
        keys.add_row(key, what)
    return Group(keys, *[Text(f"\n{note}") for note in NOTES])
