"""Parse a search query for both databases and for highlighting."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain

from markupsafe import Markup, escape

from microblog.posts.tokenizer import Term, is_dense, phrases_of, terms_of

MAX_QUERY = 140  # Unicode code points of a query: the maximum length of a post
MIN_PREFIX_LENGTH = 3  # minimum length of a last word that may be a prefix
_QUOTES = str.maketrans(dict.fromkeys("“”„‟«»＂", '"'))
_CHUNK = re.compile(r'"([^"]*)"|([^\s"]+)')


@dataclass(frozen=True, slots=True)
class Phrase:
    """Adjacent terms; if `unfinished`, the last of them is a prefix."""

    terms: tuple[str, ...]
    unfinished: bool = False

    @property
    def text(self) -> str:
        """The terms separated by spaces, as in the index."""
        return " ".join(self.terms)

    def spans(self, terms: list[Term]) -> Iterator[tuple[int, int]]:
        """Yield the start and the end of each occurrence of the phrase in a text that consists of `terms`."""
        for first in range(len(terms) - len(self.terms) + 1):
            last = first + len(self.terms) - 1
            if self._matches([term.text for term in terms[first : last + 1]]):
                yield terms[first].start, terms[last].end

    def _matches(self, found: list[str]) -> bool:
        if self.unfinished:
            return found[:-1] == list(self.terms[:-1]) and found[-1].startswith(self.terms[-1])
        return found == list(self.terms)


@dataclass(frozen=True, slots=True)
class Query:
    """Phrases that a post must all contain. A query without phrases finds nothing."""

    phrases: tuple[Phrase, ...]
    # The text may end in the middle of a word, so that the last term of the last phrase may be a prefix.
    prefix_allowed: bool = False

    @classmethod
    def parse(cls, text: str) -> Query:
        """Return the query for `text`, which may be any: words, and phrases in quotes; all else separates words."""
        phrases: list[Phrase] = []
        prefix_allowed = False
        for quoted, bare in _CHUNK.findall(text.translate(_QUOTES)):
            found = [Phrase(terms) for terms in phrases_of(quoted or bare)]
            phrases += found
            if found:
                prefix_allowed = bool(bare) and _may_be_prefix(found[-1].terms[-1])
        last = phrases[-1:]
        others = dict.fromkeys(phrase for phrase in phrases if phrase not in last)
        return cls((*others, *last), prefix_allowed)

    def __bool__(self) -> bool:
        return bool(self.phrases)

    def unfinished(self) -> Query:
        """Return the query with its last term as a prefix."""
        *others, last = self.phrases
        return replace(self, phrases=(*others, replace(last, unfinished=True)))

    def for_fts5(self) -> str:
        """Return the query in the syntax of SQLite's FTS5. Terms contain no quotes."""
        return " AND ".join(f'"{phrase.text}"{" *" * phrase.unfinished}' for phrase in self.phrases)

    def for_tsquery(self) -> str:
        """Return the query in the syntax of PostgreSQL's ``tsquery``. Terms contain no quotes."""
        quoted = (
            "<->".join(f"'{term}'" for term in phrase.terms) + ":*" * phrase.unfinished for phrase in self.phrases
        )
        return "&".join(f"({phrase})" for phrase in quoted)

    def scorer(self) -> Callable[[str], int]:
        """Return a function that gives a matching text a score from 0 to 399; its argument is the text's terms.

        The terms are separated by spaces, as in the index. Texts with all phrases as typed, not as prefixes, score
        highest; among these, texts that have them adjacent and in order; then those in which they are a greater part.
        """
        typed = [(f" {phrase.text} ", len(phrase.terms)) for phrase in self.phrases]
        adjacent = f" {' '.join(phrase.text for phrase in self.phrases)} " if len(typed) > 1 else None

        def score(text: str) -> int:
            padded = f" {text} "
            counts = [padded.count(phrase) * terms for phrase, terms in typed]
            points = 200 * all(counts) + 100 * (adjacent is not None and adjacent in padded)
            return points + min(99, 100 * sum(counts) // (padded.count(" ") - 1))

        return score

    def highlight(self, text: str) -> Markup:
        """Return `text` as HTML, with ``<mark>`` around the matches."""
        terms = terms_of(text)
        phrases = self.unfinished().phrases if self.prefix_allowed else self.phrases
        spans = sorted(chain.from_iterable(phrase.spans(terms) for phrase in phrases))
        html, position = Markup(), 0
        for start, end in _merged(spans):
            html += escape(text[position:start]) + Markup("<mark>%s</mark>") % text[start:end]
            position = end
        return html + escape(text[position:])


def _may_be_prefix(term: str) -> bool:
    return len(term) >= MIN_PREFIX_LENGTH and not is_dense(term[0])


def _merged(spans: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield `spans`, which are sorted, with those that touch or overlap merged."""
    current: tuple[int, int] | None = None
    for start, end in spans:
        if current is None or start > current[1]:
            if current is not None:
                yield current
            current = start, end
        else:
            current = current[0], max(current[1], end)
    if current is not None:
        yield current
