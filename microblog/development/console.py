"""Print the lines of several programs, each with its time and the name of its program."""

from __future__ import annotations

import io
import queue
import threading
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from typing import Any

from honcho.colour import get_colours
from honcho.printer import Message, Printer

STDOUT = 1
MAX_QUEUED_LINES = 10_000


class Console:
    """A printer of lines from any thread, which never blocks the thread, even if standard output is slow or closed.

    If standard output blocks (a full pipe, a paused terminal), lines beyond ``MAX_QUEUED_LINES`` are dropped, and the
    programs continue.
    """

    def __init__(self, names: Iterable[str]) -> None:
        names = list(names)
        self._colours = dict(zip(names, get_colours(), strict=False))
        # Not sys.stdout: a blocked print would still hold the lock of its buffer at interpreter exit.
        output = io.TextIOWrapper(
            io.FileIO(STDOUT, "w", closefd=False), encoding="utf-8", errors="replace", write_through=True
        )
        self._printer = Printer(output, width=max(map(len, names), default=0))
        self._lines: queue.Queue[Any] = queue.Queue(MAX_QUEUED_LINES)
        self._thread = threading.Thread(target=self._print, daemon=True)
        self._thread.start()

    def say(self, text: str | bytes, name: str = "") -> None:
        """Print `text`, prefixed with `name`, the program that wrote it."""
        with suppress(queue.Full):
            self._lines.put_nowait(Message("line", text, datetime.now(), name, self._colours.get(name)))

    def close(self, timeout: float = 0.5) -> None:
        """Print the remaining lines, for `timeout` seconds at most."""
        with suppress(queue.Full):
            self._lines.put_nowait(None)
        self._thread.join(timeout)

    def _print(self) -> None:
        for message in iter(self._lines.get, None):
            with suppress(OSError):  # standard output is closed, so the error cannot be reported
                self._printer.write(message)
