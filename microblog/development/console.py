"""The terminal of `make run`: every program's lines, each with its name before it."""

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
LINES_KEPT = 10_000


class Console:
    """Prints lines from any thread, and lets nobody wait for a slow or absent reader.

    A reader who stops reading (a full pipe, a paused terminal) loses lines beyond ``LINES_KEPT``; the
    programs go on.
    """

    def __init__(self, names: Iterable[str]) -> None:
        names = list(names)
        self._colours = dict(zip(names, get_colours(), strict=False))
        # Not sys.stdout: its buffer's lock would still be held by a blocked print when the interpreter ends.
        output = io.TextIOWrapper(
            io.FileIO(STDOUT, "w", closefd=False), encoding="utf-8", errors="replace", write_through=True
        )
        self._printer = Printer(output, width=max(map(len, names), default=0))
        self._lines: queue.Queue[Any] = queue.Queue(LINES_KEPT)
        self._thread = threading.Thread(target=self._print, daemon=True)
        self._thread.start()

    def say(self, text: str | bytes, name: str = "") -> None:
        """Print `text`, as said by the program called `name`."""
        with suppress(queue.Full):
            self._lines.put_nowait(Message("line", text, datetime.now(), name, self._colours.get(name)))

    def close(self, timeout: float = 0.5) -> None:
        """Print what is still waiting, for `timeout` seconds at most."""
        with suppress(queue.Full):
            self._lines.put_nowait(None)
        self._thread.join(timeout)

    def _print(self) -> None:
        for message in iter(self._lines.get, None):
            with suppress(OSError):  # the reader is gone; there is nobody to tell
                self._printer.write(message)
