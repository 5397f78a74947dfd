"""Parse a search query for both databases and for highlighting."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain

from markupsafe import Markup, escape

from microblog.posts.tokenizer import Term, is_dense, phrases_of, terms_of

SHORTEST_BEGINNING = 3  # letters of a last word that may be the beginning of a longer one
_QUOTES = str.maketrans(dict.fromkeys("“”„‟«»＂", '"'))
_CHUNK = re.compile(r'"([^"]*)"|([^\s"]+)')


@dataclass(frozen=True, slots=True)
class Phrase:
    """Terms that stand next to each other; if it is `unfinished`, the last of them may go on."""

    terms: tuple[str, ...]
    unfinished: bool = False

    @property
    def text(self) -> str:
        """The terms with a space between each two, as the index has them."""
        return " ".join(self.terms)

    def places(self, terms: list[Term]) -> Iterator[tuple[int, int]]:
        """From where to where the phrase stands in a text that consists of `terms`."""
        for first in range(len(terms) - len(self.terms) + 1):
            last = first + len(self.terms) - 1
            if self._fits([term.text for term in terms[first : last + 1]]):
                yield terms[first].start, terms[last].end

    def _fits(self, found: list[str]) -> bool:
        if self.unfinished:
            return found[:-1] == list(self.terms[:-1]) and found[-1].startswith(self.terms[-1])
        return found == list(self.terms)


@dataclass(frozen=True, slots=True)
class Query:
    """Phrases that a post must all have. Without any it finds nothing."""

    phrases: tuple[Phrase, ...]
    # What was typed may end in the middle of a word; then this is so for the last phrase, else there is none.
    may_go_on: bool = False

    @classmethod
    def parse(cls, text: str) -> Query:
        """The query in `text`, whatever it is: words, phrases in quotes; everything else parts words."""
        phrases: list[Phrase] = []
        may_go_on = False
        for quoted, bare in _CHUNK.findall(text.translate(_QUOTES)):
            found = [Phrase(terms) for terms in phrases_of(quoted or bare)]
            phrases += found
            if found:
                may_go_on = bool(bare) and _may_go_on(found[-1].terms[-1])
        last = phrases[-1:]
        kept = dict.fromkeys(phrase for phrase in phrases if phrase not in last)
        return cls((*kept, *last), may_go_on)

    def __bool__(self) -> bool:
        return bool(self.phrases)

    def unfinished(self) -> Query:
        """The query whose last word is the beginning of one."""
        *others, last = self.phrases
        return replace(self, phrases=(*others, replace(last, unfinished=True)))

    def for_fts5(self) -> str:
        """The query in the language of SQLite's FTS5. Terms have no quotes in them."""
        return " AND ".join(f'"{phrase.text}"{" *" * phrase.unfinished}' for phrase in self.phrases)

    def for_tsquery(self) -> str:
        """The query in the language of PostgreSQL's ``tsquery``. Terms have no quotes in them."""
        quoted = (
            "<->".join(f"'{term}'" for term in phrase.terms) + ":*" * phrase.unfinished for phrase in self.phrases
        )
        return "&".join(f"({phrase})" for phrase in quoted)

    def scorer(self) -> Callable[[str], int]:
        """A function that says how well a text that it finds fits it, 0 to 399; it is given what the index has of that.

        First come texts that have all words as they were typed, not as beginnings of others; among these such as have
        them next to each other, in order; then those of which they are the greater part.
        """
        typed = [(f" {phrase.text} ", len(phrase.terms)) for phrase in self.phrases]
        together = f" {' '.join(phrase.text for phrase in self.phrases)} " if len(typed) > 1 else None

        def score(text: str) -> int:
            padded = f" {text} "
            counts = [padded.count(one) * terms for one, terms in typed]
            points = 200 * all(counts) + 100 * (together is not None and together in padded)
            return points + min(99, 100 * sum(counts) // (padded.count(" ") - 1))

        return score

    def highlight(self, text: str) -> Markup:
        """`text` as HTML, with ``<mark>`` around what the query finds in it."""
        terms = terms_of(text)
        phrases = self.unfinished().phrases if self.may_go_on else self.phrases
        places = sorted(chain.from_iterable(phrase.places(terms) for phrase in phrases))
        html, done = Markup(), 0
        for start, end in _merged(places):
            html += escape(text[done:start]) + Markup("<mark>%s</mark>") % text[start:end]
            done = end
        return html + escape(text[done:])


def _may_go_on(term: str) -> bool:
    return len(term) >= SHORTEST_BEGINNING and not is_dense(term[0])


def _merged(places: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """`places`, in order, those that touch or overlap as one."""
    current: tuple[int, int] | None = None
    for start, end in places:
        if current is None or start > current[1]:
            if current is not None:
                yield current
            current = start, end
        else:
            current = current[0], max(current[1], end)
    if current is not None:
        yield current
