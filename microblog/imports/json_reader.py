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
MAX_ENTRY = 1024 * 1024  # characters of one entry; a longer one cannot be a post
LONGEST_TOKEN = 16  # characters; an escaped surrogate pair has 12

# Matches the rest of the buffer after a value that may continue beyond the buffer. The decoder accepts a number without
# its fraction or exponent if no digit of that has been read.
_MAY_CONTINUE = re.compile(r"(\.|[eE][-+]?)?\Z")
_WHITESPACE = " \t\n\r"
# Numbers are not used. As a float, one with too many digits is no error.
_DECODE = json.JSONDecoder(parse_int=float).raw_decode


class BrokenJson(Exception):
    """The file is not valid JSON from `line` and `column` on; both count from 1."""

    def __init__(self, line: int, column: int) -> None:
        super().__init__(f"line {line}, column {column}")
        self.line = line
        self.column = column


class EntryTooLarge(BrokenJson):
    """The entry is longer than MAX_ENTRY."""


class Entry(NamedTuple):
    """One element of a list: the `key` of the list in the file, its `number` and `line`, from 1, and its `value`.

    Bytes that are not UTF-8, and unpaired surrogates, are lone surrogates in its strings.
    """

    key: str
    number: int
    line: int
    value: Any


class EntryReader:
    """Iterator over the elements of the lists that a file, one JSON object, has under certain keys.

    Raises BrokenJson at the first invalid character, after the entries before it have been yielded.
    """

    def __init__(self, file: IO[bytes], keys: Container[str]) -> None:
        self.bytes_read = 0
        self.found = False  # whether the file has any of the lists
        self._file = file
        self._keys = keys
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")(errors="surrogateescape")
        self._text = ""
        self._index = 0  # index in _text of the next character
        self._line = 1  # number of the line at index _marked
        self._marked = 0
        self._line_start = 0  # index in _text where that line begins; negative if that part was discarded
        self._ended = False

    def __iter__(self) -> Iterator[Entry]:
        self._expect("{")
        while self._next() != "}":
            key = self._value()
            if not isinstance(key, str):
                raise self._broken()
            self._expect(":")
            if key in self._keys and self._next() == "[":
                yield from self._elements(key)
            else:
                self._value()
            self._separator("}")
        self._expect("}")
        if self._next():
            raise self._broken()

    def _elements(self, key: str) -> Iterator[Entry]:
        self.found = True
        self._expect("[")
        number = 0
        while self._next() != "]":
            number += 1
            self._mark()
            yield Entry(key, number, self._line, self._value())
            self._separator("]")
        self._expect("]")

    def _separator(self, end: str) -> None:
        """Consume a comma, which another element must follow, or stop before `end`."""
        character = self._next()
        if character == end:
            return
        if character != ",":
            raise self._broken()
        self._index += 1
        if self._next() == end:
            raise self._broken()

    def _expect(self, character: str) -> None:
        if self._next() != character:
            raise self._broken()
        self._index += 1

    def _next(self) -> str:
        """Return the next character that is not white space; empty at the end of the file."""
        while True:
            text, index = self._text, self._index
            while index < len(text):
                character = text[index]
                if character not in _WHITESPACE:
                    self._index = index
                    return character
                index += 1
            self._index = index
            if not self._read():
                return ""

    def _value(self) -> Any:
        """Decode the value that begins at the next character."""
        self._next()
        while True:
            try:
                value, end = _DECODE(self._text, self._index)
            except RecursionError:
                raise self._broken() from None
            except JSONDecodeError as error:
                if self._ended or not self._cut_short(error):
                    raise self._broken(error.pos) from None
                end = len(self._text)
            if not self._ended and _MAY_CONTINUE.match(self._text, end):
                self._read()
                continue
            self._index = end
            return value

    def _cut_short(self, error: JSONDecodeError) -> bool:
        """Return whether more input may resolve the error: it is at the buffer's end, or an unterminated string."""
        return error.msg.startswith("Unterminated string") or error.pos > len(self._text) - LONGEST_TOKEN

    def _read(self) -> bool:
        """Discard what has been consumed and append more of the file to _text. Return False at the end of the file.

        Read as many bytes as there are unread characters, or more, so that a long entry is not decoded too often.
        """
        if self._ended:
            return False
        unread = len(self._text) - self._index
        if unread > MAX_ENTRY:
            raise EntryTooLarge(*self._place(self._index))
        chunk = self._file.read(max(CHUNK, unread))
        self.bytes_read += len(chunk)
        self._ended = not chunk
        self._mark()
        self._text = self._text[self._index :] + self._decoder.decode(chunk, final=self._ended)
        self._line_start -= self._index
        self._index = self._marked = 0
        return not self._ended

    def _broken(self, index: int | None = None) -> BrokenJson:
        return BrokenJson(*self._place(self._index if index is None else index))

    def _place(self, index: int) -> tuple[int, int]:
        """Return the line and column of the character at `index`."""
        lines = self._text.count("\n", self._marked, index)
        line_start = self._text.rfind("\n", self._marked, index) + 1 if lines else self._line_start
        return self._line + lines, index - line_start + 1

    def _mark(self) -> None:
        """Count the lines up to the next character, so that none is counted twice."""
        self._line, column = self._place(self._index)
        self._marked, self._line_start = self._index, self._index - column + 1
