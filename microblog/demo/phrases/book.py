"""A phrase book: parts of sentences in one language, of which any number of posts is put together."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Person:
    """Somebody who speaks the language of the book, and what their profile says."""

    name: str
    about_me: str


@dataclass(frozen=True)
class Book:
    """What is said in `language` (BCP 47): an opening or an answer, then a thought, then a closing.

    And what is written to one alone, by the first of the `people` and by the second: a message, the answer to it, and
    what is written back.
    """

    language: str
    people: tuple[Person, ...]
    openings: tuple[str, ...]
    answers: tuple[str, ...]
    thoughts: tuple[str, ...]
    closings: tuple[str, ...]
    letters: tuple[tuple[str, str, str], ...]

    def posts(self, chance: random.Random) -> Iterator[str]:
        """Posts without an end, in an order of `chance`, none twice."""
        return _combined(self.openings, self.thoughts, self.closings, chance)

    def replies(self, chance: random.Random) -> Iterator[str]:
        """What follows the name of whom one answers; without an end, none twice."""
        return _combined(self.answers, self.thoughts, self.closings, chance)


def _combined(
    firsts: tuple[str, ...], thoughts: tuple[str, ...], closings: tuple[str, ...], chance: random.Random
) -> Iterator[str]:
    """Each of the combinations once, with no list of them; then once more with the number of the round.

    From one to the next all three parts change.
    """
    first_ones, middle_ones, last_ones = (chance.sample(part, len(part)) for part in (firsts, thoughts, closings))
    for number in itertools.count():
        rest, first = divmod(number, len(first_ones))
        rest, middle = divmod(rest, len(middle_ones))
        turn, last = divmod(rest, len(last_ones))
        # What is added makes the slow wheels turn with the fast ones; each still comes past every place once.
        text = " ".join(
            (
                first_ones[first],
                middle_ones[(middle + first) % len(middle_ones)],
                last_ones[(last + 5 * middle + first) % len(last_ones)],
            )
        )
        yield f"{text} ({turn + 1})" if turn else text
