"""Decode keys from the bytes that a terminal sends."""

from __future__ import annotations

import codecs
import os
import re

ENTER, ESCAPE, BACKSPACE, TAB, BACKTAB = "enter", "escape", "backspace", "tab", "backtab"
UP, DOWN, LEFT, RIGHT = "up", "down", "left", "right"
PAGE_UP, PAGE_DOWN, HOME, END, REDRAW = "page up", "page down", "home", "end", "redraw"

ESCAPE_TIMEOUT = 0.05  # seconds within which the rest of a key that begins with an escape arrives

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
    """Reads keys from the terminal behind the file descriptor `fd`, which must hand over each byte as it is typed."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._text = ""

    @property
    def pending(self) -> bool:
        """Return whether a key has begun that ESCAPE_TIMEOUT decides: more bytes, or the escape key alone."""
        return bool(self._text)

    def read(self) -> list[str]:
        """The keys that have arrived: a character each, or one of this module's names. Raises EOFError at the end."""
        data = os.read(self._fd, 1024)
        if not data:
            raise EOFError
        keys, self._text = decode(self._text + self._decoder.decode(data))
        return keys

    def flush(self) -> list[str]:
        """The key that was pending, now that nothing followed."""
        alone = [ESCAPE] if self._text == "\x1b" else []
        self._text = ""
        return alone


def decode(text: str) -> tuple[list[str], str]:
    """The keys in `text`, and the end of it that may yet become one. Keys without a meaning are left out."""
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
