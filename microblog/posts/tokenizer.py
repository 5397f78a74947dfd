"""Terms of a text for the search index, computed here so that both databases give the same results.

A term is a word between spaces and punctuation, folded: ``Crème`` and ``CREME`` are equal, as are Arabic and Hebrew
with and without points, and the forms of alef. Very long words are truncated. Text in scripts without spaces (Chinese,
Japanese, Thai, Lao, Khmer, Burmese) and in Korean, whose words have grammatical endings, is split into pairs of
neighbouring characters, which match any part of two or more characters, and into single characters. An emoji is a term.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

# Characters of one term. PostgreSQL accepts 2046 bytes; in a post, only characters that stand for a whole sentence
# (such as U+FDFA) expand to that many.
MAX_TERM_LENGTH = 500


class Term(NamedTuple):
    """A term, and the part of the text that it was made from: from `start` up to, but not including, `end`."""

    text: str
    start: int
    end: int


def terms_of(text: str) -> list[Term]:
    """Return the terms of `text` in order, followed by the single characters of runs that are indexed in pairs."""
    found: list[Term] = []
    singles: list[Term] = []
    for folded, start, end, dense in _pieces(text):
        if not dense:
            found.append(Term(folded, start, end))
            continue
        characters = list(_characters(text, folded, start, end))
        found += _pair_terms(characters)
        singles += characters[:-1]
    return found + singles


def indexed(text: str) -> str:
    """Return the terms of `text`, separated by spaces, as the index stores them."""
    if text.isascii():
        return " ".join(_ASCII_WORD.findall(text.lower()))
    found: list[str] = []  # like terms_of(), but without positions, since this runs for each hit of a search
    singles: list[str] = []
    for folded, _start, _end, dense in _pieces(text):
        if not dense:
            found.append(folded)
            continue
        found += _pairs(folded)
        singles += folded[:-1]
    return " ".join(found + singles)


def phrases_of(text: str) -> list[tuple[str, ...]]:
    """Return the sequences of adjacent terms that a post must have to contain `text`; none if there is no term.

    In the post, the last run of `text` may be longer. If it is a single character, it is searched for separately.
    """
    pieces = list(_pieces(text))
    sequence: list[str] = []
    for position, (folded, _start, _end, dense) in enumerate(pieces, 1):
        if not dense:
            sequence.append(folded)
        elif position < len(pieces):
            sequence += _pairs(folded)
        elif len(folded) > 1:
            sequence += _pairs(folded)[:-1]
        else:
            return [tuple(sequence), (folded,)] if sequence else [(folded,)]
    return [tuple(sequence)] if sequence else []


def is_dense(character: str) -> bool:
    """Return whether `character` belongs to a script that is indexed in pairs."""
    return _KINDS[ord(character)] == _DENSE


_WORD, _DENSE, _SYMBOL, _JOINER, _NONE = "wdsj "
_PIECE = re.compile("w[wj]*|d[dj]*|s")  # invisible characters neither start nor separate words
_ASCII_WORD = re.compile("[a-z0-9]+")
_ASCII_REST = re.compile(r"[^a-z0-9\x80-\U0010ffff]")
_DENSE_SCRIPTS = re.compile(
    "[\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ebd\u0ec0-\u0ece\u0edc-\u0edf\u1000-\u103f\u1050-\u108f\u1780-\u17d3"
    "\u1100-\u11ff\u2e80-\u2fdf\u3005-\u3007\u3041-\u30ff\u3130-\u318f\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\uff66-\uff9f\uffa0-\uffdc\U0001b000-\U0001b16f\U00020000-\U0003fffd]"
)
# Accents of Latin, Greek and Cyrillic, except the breve that turns и into й; the points of Hebrew and Arabic, and the
# tatweel that lengthens an Arabic word; and invisible characters, such as those that select how a symbol is drawn.
# Marks of other scripts are vowels and are not removed.
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
    """The kind of each character, determined once."""

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
    """Yield each word, run or symbol, folded; its start and end in `text`; and whether it is indexed in pairs."""
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
    return _ASCII_REST.sub("", folded)[:MAX_TERM_LENGTH]


def _pairs(run: str) -> list[str]:
    """Return each character of a run with the next one; the last one alone."""
    return [run[index : index + 2] for index in range(len(run))]


def _characters(text: str, folded: str, start: int, end: int) -> Iterator[Term]:
    """Yield each character of a run; if folding has merged characters, each has the position of the whole run."""
    each = [(character, index) for index in range(start, end) for character in _fold(text[index])]
    exact = [character for character, _index in each] == list(folded)
    for character, index in each if exact else [(character, start) for character in folded]:
        yield Term(character, index, index + 1 if exact else end)


def _pair_terms(characters: list[Term]) -> Iterator[Term]:
    for first, second in pairwise(characters):
        yield Term(first.text + second.text, first.start, second.end)
    yield characters[-1]
