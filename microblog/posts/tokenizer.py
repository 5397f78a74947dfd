"""Terms of a text for the search index, made in one place so that both databases answer alike.

A term is a word between spaces and punctuation, folded: ``Crème`` and ``CREME`` are equal, as are Arabic and Hebrew
with and without points, and the forms of alef. Very long words are truncated. Scripts without spaces (Chinese,
Japanese, Thai, Lao, Khmer, Burmese) and Korean, whose words carry grammatical endings, become pairs of neighbouring
characters, which find any part of two or more characters, and single characters. An emoji is a term.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

# Characters of one term. PostgreSQL takes 2046 bytes; of what can be typed only signs that stand for a whole sentence
# (as U+FDFA does) unfold to that many.
LONGEST = 500


class Term(NamedTuple):
    """One term of a text, and the part of the text (from `start` to before `end`) that it was made of."""

    text: str
    start: int
    end: int


def terms_of(text: str) -> list[Term]:
    """The terms of `text`, in order; behind them each single character of a run that has been kept in twos."""
    found: list[Term] = []
    singles: list[Term] = []
    for folded, start, end, dense in _pieces(text):
        if not dense:
            found.append(Term(folded, start, end))
            continue
        characters = list(_characters(text, folded, start, end))
        found += _in_twos(characters)
        singles += characters[:-1]
    return found + singles


def indexed(text: str) -> str:
    """Return the terms of `text`, separated by spaces, as the index stores them."""
    if text.isascii():
        return " ".join(_ASCII_WORD.findall(text.lower()))
    found: list[str] = []  # as terms_of() has them; this is done for each hit of a search, and need not tell where
    singles: list[str] = []
    for folded, _start, _end, dense in _pieces(text):
        if not dense:
            found.append(folded)
            continue
        found += _twos(folded)
        singles += folded[:-1]
    return " ".join(found + singles)


def phrases_of(text: str) -> list[tuple[str, ...]]:
    """Return the sequences of adjacent terms that a post must have to contain `text`; none if there is no term.

    The run that `text` ends with may go on in the post. If that is a single character, it is looked for by itself.
    """
    pieces = list(_pieces(text))
    row: list[str] = []
    for position, (folded, _start, _end, dense) in enumerate(pieces, 1):
        if not dense:
            row.append(folded)
        elif position < len(pieces):
            row += _twos(folded)
        elif len(folded) > 1:
            row += _twos(folded)[:-1]
        else:
            return [tuple(row), (folded,)] if row else [(folded,)]
    return [tuple(row)] if row else []


def is_dense(character: str) -> bool:
    """Return whether `character` is of a script that is kept in twos."""
    return _KINDS[ord(character)] == _DENSE


_WORD, _DENSE, _SYMBOL, _JOINER, _NONE = "wdsj "
_PIECE = re.compile("w[wj]*|d[dj]*|s")  # what nobody sees neither begins a word nor ends it
_ASCII_WORD = re.compile("[a-z0-9]+")
_ASCII_REST = re.compile(r"[^a-z0-9\x80-\U0010ffff]")
_DENSE_SCRIPTS = re.compile(
    "[\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ebd\u0ec0-\u0ece\u0edc-\u0edf\u1000-\u103f\u1050-\u108f\u1780-\u17d3"
    "\u1100-\u11ff\u2e80-\u2fdf\u3005-\u3007\u3041-\u30ff\u3130-\u318f\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\uff66-\uff9f\uffa0-\uffdc\U0001b000-\U0001b16f\U00020000-\U0003fffd]"
)
# Accents of Latin, Greek and Cyrillic, but for the one that makes another letter of и; the points of Hebrew and Arabic,
# and the stroke that makes an Arabic word longer; and what only tells how a symbol is drawn. Marks of other scripts are
# vowels, and stay.
_ACCENT = re.compile(
    "[\u0300-\u0305\u0307-\u036f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0640\u064b-\u0652\u0656-\u065f\u0670"
    "\u20d0-\u20ff\ufe00-\ufe0f\u00ad\u061c\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]|(?<!и)\u0306"
)
_PLAIN = str.maketrans(
    {"ø": "o", "đ": "d", "ħ": "h", "ł": "l", "ŧ": "t", "ı": "i", "æ": "ae", "œ": "oe"}
    | dict.fromkeys("أإآٱ", "ا")
    | {"ى": "ي"}
)


class _Kinds(dict[int, str]):
    """The kind of every character, looked up once each."""

    def __missing__(self, point: int) -> str:
        character = chr(point)
        category = unicodedata.category(character)
        if _DENSE_SCRIPTS.match(character):
            kind = _DENSE
        elif category[0] in "LNM":
            kind = _WORD
        elif category == "Cf":
            kind = _JOINER
        else:
            kind = _SYMBOL if category == "So" else _NONE
        self[point] = kind
        return kind


_KINDS = _Kinds()


def _pieces(text: str) -> Iterator[tuple[str, int, int, bool]]:
    """Each word, run or symbol, folded; where it begins and ends in `text`; and whether it is kept in twos."""
    for match in _PIECE.finditer(text.translate(_KINDS)):
        start, end = match.span()
        if folded := _fold(text[start:end]):
            yield folded, start, end, match[0][0] == _DENSE


@lru_cache(10_000)
def _fold(piece: str) -> str:
    if piece.isascii():
        return piece.lower()
    decomposed = unicodedata.normalize("NFKD", piece.casefold()).casefold()
    folded = unicodedata.normalize("NFKC", _ACCENT.sub("", decomposed)).translate(_PLAIN)
    return _ASCII_REST.sub("", folded)[:LONGEST]


def _twos(run: str) -> list[str]:
    """Each character of a run with the one behind it; the last alone."""
    return [run[place : place + 2] for place in range(len(run))]


def _characters(text: str, folded: str, start: int, end: int) -> Iterator[Term]:
    """Each character of a run; one of which several became one is marked as a whole."""
    each = [(character, place) for place in range(start, end) for character in _fold(text[place])]
    exact = [character for character, _place in each] == list(folded)
    for character, place in each if exact else [(character, start) for character in folded]:
        yield Term(character, place, place + 1 if exact else end)


def _in_twos(characters: list[Term]) -> Iterator[Term]:
    for first, second in pairwise(characters):
        yield Term(first.text + second.text, first.start, second.end)
    yield characters[-1]
