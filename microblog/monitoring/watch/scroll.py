"""A scrolled view of a long text."""

from __future__ import annotations

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.segment import Segment

from microblog.monitoring.watch.choices import Choices


class Scrolled:
    """Shows `body` from line ``choices.scroll`` on, and limits that number to the length of the text."""

    def __init__(self, body: RenderableType, choices: Choices) -> None:
        self._body = body
        self._choices = choices

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = console.render_lines(self._body, options.update(height=None), pad=False)
        self._choices.scroll = min(self._choices.scroll, max(0, len(lines) - self._choices.page))
        for line in lines[self._choices.scroll : self._choices.scroll + self._choices.page]:
            yield from line
            yield Segment.line()
