"""Decode keys from the bytes that a terminal sends."""

from __future__ import annotations

import codecs
import os
import re

ENTER, ESCAPE, BACKSPACE, TAB, BACKTAB = "enter", "escape", "backspace", "tab", "backtab"
UP, DOWN, LEFT, RIGHT = "up", "down", "left", "right"
PAGE_UP, PAGE_DOWN, HOME, END, REDRAW = "page up", "page down", "home", "end", "redraw"

ESCAPE_TIMEOUT = 0.05  # seconds within which the rest of an escape sequence arrives

_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|O[ -~])")
_UNFINISHED = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|O)?\Z")
_NAMES = {
    "\r": ENTER, "\n": ENTER, "\t": TAB, "\x7f": BACKSPACE, "\x08": BACKSPACE, "\x0c": REDRAW, "\x1b[Z": BACKTAB,
    "\x1b[5~": PAGE_UP, "\x1b[6~": PAGE_DOWN,
    "\x1b[1~": HOME, "\x1b[7~": HOME, "\x1b[4~": END, "\x1b[8~": END,
} | {
    f"\x1b{form}{letter}": name
    for form in ("[", "O")
    for letter, name in {"A": UP, "B": DOWN, "C": RIGHT, "D": LEFT, "H": HOME, "F": END, "M": ENTER}.items()
}  # fmt: skip


class Keyboard:
    """Reads keys from the terminal with the file descriptor `fd`, which must deliver each byte as it is typed."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._text = ""

    @property
    def pending(self) -> bool:
        """Return whether a key is incomplete. If no byte follows within ESCAPE_TIMEOUT, it is the escape key alone."""
        return bool(self._text)

    def read(self) -> list[str]:
        """Return the keys that have arrived, as characters or names from this module. Raises EOFError at the end."""
        data = os.read(self._fd, 1024)
        if not data:
            raise EOFError
        keys, self._text = decode(self._text + self._decoder.decode(data))
        return keys

    def flush(self) -> list[str]:
        """Return the pending key, after no byte has followed."""
        keys = [ESCAPE] if self._text == "\x1b" else []
        self._text = ""
        return keys


def decode(text: str) -> tuple[list[str], str]:
    """Return the keys in `text`, and the rest that may be an incomplete key. Unknown keys are omitted."""
    keys: list[str] = []
    while text:
        if _UNFINISHED.match(text):
            return keys, text
        sequence = _SEQUENCE.match(text)
        if sequence:
            key = _NAMES.get(sequence[0])
        elif text[0] == "\x1b":
            key = ESCAPE
        else:
            key = _NAMES.get(text[0], text[0] if text[0].isprintable() else None)
        if key is not None:
            keys.append(key)
        text = text[len(sequence[0]) if sequence else 1 :]
    return keys, ""
