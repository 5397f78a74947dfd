"""Who says what, when, and to whom."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from microblog.demo.phrases import BOOKS

TALKATIVE = 0.45  # how often somebody answers what was said last
SOON = 1 / 2000  # of the whole time: an answer comes no later (of a year, some four hours)


class Speaker(NamedTuple):
    """Somebody with a name, and the language (BCP 47) that they write in."""

    name: str
    language: str


class Said(NamedTuple):
    """One post: `moment` runs from 0 to 1, the whole time."""

    speaker: Speaker
    text: str
    moment: float


def conversations(speakers: Sequence[Speaker], count: int, of_first: int, chance: random.Random) -> Iterator[Said]:
    """`count` posts in the order of time, none twice; `of_first` of them (or all) are the first speaker's."""
    posts = {book.language: book.posts(chance) for book in BOOKS}
    replies = {book.language: book.replies(chance) for book in BOOKS}
    compatriots = {book.language: [one for one in speakers[1:] if one.language == book.language] for book in BOOKS}
    first, *others = speakers
    left = of_first if others else count
    previous: Speaker | None = None
    moment = 0.0
    for number in range(count):
        heard = previous if chance.random() < TALKATIVE else None
        # Of what is left as many as are due: the first one's posts are spread over the whole time.
        if chance.random() * (count - number) < left:
            speaker, left = first, left - 1
        else:
            speaker = chance.choice((heard and compatriots[heard.language]) or others)
        if heard is not None and heard != speaker and heard.language == speaker.language:
            moment += chance.random() * min(SOON, 1 / count)
            text = f"@{heard.name} {next(replies[speaker.language])}"
        else:
            moment = max(moment, (number + chance.random()) / count)
            text = next(posts[speaker.language])
        yield Said(speaker, text, moment)
        previous = speaker
