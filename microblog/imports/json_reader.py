"""Read the entries of a large JSON file one by one, in constant memory.

It uses the scanner of the standard library. Event-based parsers keep all nesting levels of a hostile file in memory and
replace lone surrogates without an error.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Container, Iterator
from json import JSONDecodeError
from typing import IO, Any, NamedTuple

CHUNK = 64 * 1024  # bytes read at once
MAX_ENTRY = 1024 * 1024  # characters of one entry; whoever sends more is not sending posts
LONGEST_TOKEN = 16  # characters; two halves of a character, escaped, have 12

# What there may be between the end of a value and the end of what has been read, if more of the file may belong to it:
# the decoder takes a number without its last part, of which nothing but the sign has been read.
_MAY_GO_ON = re.compile(r"(\.|[eE][-+]?)?\Z")
_SPACE = " \t\n\r"
# No number of a file is used, and one with too many digits is an error only as an int.
_DECODE = json.JSONDecoder(parse_int=float).raw_decode


class BrokenJson(Exception):
    """From here on the file is not JSON; `line` and `column` count from 1."""

    def __init__(self, line: int, column: int) -> None:
        super().__init__(f"line {line}, column {column}")
        self.line = line
        self.column = column


class EntryTooLarge(BrokenJson):
    """The entry is longer than MAX_ENTRY."""


class Entry(NamedTuple):
    """One element of a list: the `key` of the list in the file, its `number` and its `line`, from 1, and its `value`.

    Bytes that are no UTF-8, and halves of a character, are lone surrogates in its texts.
    """

    key: str
    number: int
    line: int
    value: Any


class EntryReader:
    """Iterates over the elements of the lists that a file, one JSON object, has under certain keys.

    Raises BrokenJson where the file ceases to be JSON; the entries before that have been yielded by then.
    """

    def __init__(self, file: IO[bytes], keys: Container[str]) -> None:
        self.bytes_read = 0
        self.found = False  # whether the file has any of the lists
        self._file = file
        self._keys = keys
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")(errors="surrogateescape")
        self._text = ""
        self._at = 0  # the place in _text that is read next
        self._line = 1  # the line of the place _marked
        self._marked = 0
        self._line_began = 0  # where in _text that line began; before it, for one that began in what is gone
        self._ended = False

    def __iter__(self) -> Iterator[Entry]:
        self._take("{")
        while self._next() != "}":
            key = self._value()
            if not isinstance(key, str):
                raise self._broken()
            self._take(":")
            if key in self._keys and self._next() == "[":
                yield from self._elements(key)
            else:
                self._value()
            self._separator("}")
        self._take("}")
        if self._next():
            raise self._broken()

    def _elements(self, key: str) -> Iterator[Entry]:
        self.found = True
        self._take("[")
        number = 0
        while self._next() != "]":
            number += 1
            self._mark()
            yield Entry(key, number, self._line, self._value())
            self._separator("]")
        self._take("]")

    def _separator(self, end: str) -> None:
        """Pass a comma that another element must follow, or stay before `end`."""
        character = self._next()
        if character == end:
            return
        if character != ",":
            raise self._broken()
        self._at += 1
        if self._next() == end:
            raise self._broken()

    def _take(self, character: str) -> None:
        if self._next() != character:
            raise self._broken()
        self._at += 1

    def _next(self) -> str:
        """The next character that is no white space; empty at the end of the file."""
        while True:
            text, at = self._text, self._at
            while at < len(text):
                character = text[at]
                if character not in _SPACE:
                    self._at = at
                    return character
                at += 1
            self._at = at
            if not self._read():
                return ""

    def _value(self) -> Any:
        """The value that begins at the next character."""
        self._next()
        while True:
            try:
                value, end = _DECODE(self._text, self._at)
            except RecursionError:
                raise self._broken() from None
            except JSONDecodeError as error:
                if self._ended or not self._cut_short(error):
                    raise self._broken(error.pos) from None
                end = len(self._text)
            if not self._ended and _MAY_GO_ON.match(self._text, end):
                self._read()
                continue
            self._at = end
            return value

    def _cut_short(self, error: JSONDecodeError) -> bool:
        """Return whether more input may resolve the error: it is at the buffer's end, or an unterminated string."""
        return error.msg.startswith("Unterminated string") or error.pos > len(self._text) - LONGEST_TOKEN

    def _read(self) -> bool:
        """Have more of the file in _text, which begins with what is read next; False at the end of the file.

        As much again as there is, so that a long entry is not tried too often.
        """
        if self._ended:
            return False
        left = len(self._text) - self._at
        if left > MAX_ENTRY:
            raise EntryTooLarge(*self._place(self._at))
        chunk = self._file.read(max(CHUNK, left))
        self.bytes_read += len(chunk)
        self._ended = not chunk
        self._mark()
        self._text = self._text[self._at :] + self._decoder.decode(chunk, final=self._ended)
        self._line_began -= self._at
        self._at = self._marked = 0
        return not self._ended

    def _broken(self, at: int | None = None) -> BrokenJson:
        return BrokenJson(*self._place(self._at if at is None else at))

    def _place(self, at: int) -> tuple[int, int]:
        """The line and the column of the character at `at`."""
        lines = self._text.count("\n", self._marked, at)
        began = self._text.rfind("\n", self._marked, at) + 1 if lines else self._line_began
        return self._line + lines, at - began + 1

    def _mark(self) -> None:
        """Count the lines up to what is read next, so that none is counted twice."""
        self._line, column = self._place(self._at)
        self._marked, self._line_began = self._at, self._at - column + 1
