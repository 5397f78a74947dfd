"""Output of commands as text: tables and aligned text, with colours in a terminal; formats of times and numbers."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from microblog.taskqueue import states

EMPTY = "-"
BARS = "▁▂▃▄▅▆▇█"
NO_BAR = "·"
STATE_COLOURS = {
    states.STARTED: "cyan",
    states.PROGRESS: "cyan",
    states.RETRY: "magenta",
    states.SUCCESS: "green",
    states.FAILURE: "red",
    states.REVOKED: "yellow",
}
# Texts come from users and from other servers; their control characters must not reach the terminal.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
_CONTROL_IN_LINES = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]+")


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; without a terminal, print lines with aligned columns."""
    cells = [[one_line(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _print_rich(headings, cells)
        return
    widths = [max(map(len, column)) for column in zip(headings, *cells, strict=True)]
    for row in [list(headings), *cells]:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo(line.rstrip())


def _print_rich(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(*headings, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for row in rows:
        table.add_row(*[Text(cell, style=STATE_COLOURS.get(cell, "")) for cell in row])
    # In a narrow terminal, wrapped lines are better than truncated columns.
    needed = Console(width=1000).measure(table).maximum
    console = Console()
    console.width = max(console.width, needed)
    console.print(table)


def print_fields(values: dict[str, str], indent: str = "") -> None:
    """Print names and values, one pair per line; empty values are omitted."""
    width = max(map(len, values))
    for name, value in values.items():
        if value:
            click.echo(f"{indent}{click.style(name.ljust(width), dim=True)}  {one_line(value)}")


def print_heading(text: str) -> None:
    """Print an empty line and a heading."""
    click.echo()
    click.secho(one_line(text), bold=True)


def print_block(text: str, indent: str) -> None:
    """Print the lines of a text, each preceded by `indent`."""
    for line in _CONTROL_IN_LINES.sub("\N{REPLACEMENT CHARACTER}", text).splitlines():
        click.echo(f"{indent}{line}")


def one_line(text: str) -> str:
    """Return `text` with spaces in place of line breaks and other control characters."""
    return _CONTROL.sub(" ", text)


def format_time(time: datetime | None) -> str:
    """Return a time to the second, in UTC; ``-`` for None."""
    return f"{time:%Y-%m-%d %H:%M:%S}" if time else EMPTY


def format_duration(length: timedelta) -> str:
    """Return a duration as ``0.25s``, ``12.3s``, ``4m05s``, ``3h07m`` or ``2d03h``, which fits into a narrow column."""
    seconds = max(0.0, length.total_seconds())
    if seconds < 60:
        return f"{seconds:.3g}s" if seconds >= 1 else f"{seconds:.2f}s"
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if not hours:
        return f"{minute}m{second:02}s"
    return f"{days}d{hour:02}h" if days else f"{hour}h{minute:02}m"


def format_seconds(length: float | None) -> str:
    """Return a number of seconds as format_duration() does; ``-`` for None."""
    return EMPTY if length is None else format_duration(timedelta(seconds=length))


def format_share(part: float | None) -> str:
    """Return a fraction from 0 to 1 as a percentage, such as ``12.5 %``; ``-`` for None."""
    return EMPTY if part is None else f"{part:.1%}".replace("%", " %")


def draw_sparkline(values: Sequence[float | None], width: int = 30) -> str:
    """Return the values as a line of at most `width` bars, scaled to the largest; None and zero are a dot.

    A bar for several values shows the largest of them.
    """
    per_bar = -(-len(values) // width) or 1
    bars = [max((value or 0.0) for value in values[at : at + per_bar]) for at in range(0, len(values), per_bar)]
    largest = max(bars, default=0.0)
    return "".join(BARS[math.ceil(bar / largest * len(BARS)) - 1] if bar > 0 else NO_BAR for bar in bars)
