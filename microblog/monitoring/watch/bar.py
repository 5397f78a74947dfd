"""Progress bar of a task."""

from __future__ import annotations

from rich.console import RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text


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
