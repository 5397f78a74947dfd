"""Print the lines of several programs, each with its time and the name of its program."""

from __future__ import annotations

import io
import itertools
import os
import queue
import threading
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime

STDOUT = 1
MAX_QUEUED_LINES = 10_000

# Codes of ANSI terminals.
PROGRAM_COLOURS = ("36", "34", "35", "32", "36;1", "34;1", "35;1", "32;1")
GOOD = "32;1"
BAD = "33;1"


def colours_wanted() -> bool:
    """Return True if standard output is a terminal, unless NO_COLOR is set (https://no-color.org)."""
    return os.isatty(STDOUT) and not os.environ.get("NO_COLOR")


class Console:
    """A printer of lines from any thread, which never blocks the thread, even if standard output is slow or closed.

    If standard output blocks (a full pipe, a paused terminal), lines beyond ``MAX_QUEUED_LINES`` are dropped, and the
    programs continue.
    """

    def __init__(self, names: Iterable[str]) -> None:
        names = list(names)
        self._width = max(map(len, names), default=0)
        self._colours = dict(zip(names, itertools.cycle(PROGRAM_COLOURS), strict=False))
        self._coloured = colours_wanted()
        # Not sys.stdout: a blocked print would still hold the lock of its buffer at interpreter exit.
        self._output = io.TextIOWrapper(
            io.FileIO(STDOUT, "w", closefd=False), encoding="utf-8", errors="replace", write_through=True
        )
        self._lines: queue.Queue[str | None] = queue.Queue(MAX_QUEUED_LINES)
        self._thread = threading.Thread(target=self._print, daemon=True)
        self._thread.start()

    def say(self, text: str, name: str = "", colour: str = "") -> None:
        """Print `text`, in `colour`, behind the `name` of its program."""
        start = self._paint(f"{datetime.now():%H:%M:%S} {name:{self._width}}", self._colours.get(name, ""))
        with suppress(queue.Full):
            self._lines.put_nowait(f"{start}  {self._paint(text, colour)}\n")

    def close(self, timeout: float = 0.5) -> None:
        """Print the remaining lines, for `timeout` seconds at most."""
        with suppress(queue.Full):
            self._lines.put_nowait(None)
        self._thread.join(timeout)

    def _paint(self, text: str, colour: str) -> str:
        return f"\033[{colour}m{text}\033[0m" if colour and self._coloured else text

    def _print(self) -> None:
        for line in iter(self._lines.get, None):
            with suppress(OSError):  # standard output is closed, so the error cannot be reported
                self._output.write(line)
