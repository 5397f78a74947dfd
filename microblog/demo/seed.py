"""Demo data of any size: users who write in four languages, follow each other and answer each other.

Posts are combined from the phrases in ``phrases/*.json``. Whatever the size, one statement is sent for some thousand
rows, and no more rows than these are held in memory. The data depends on the seed alone, except for the times, which
end at `now`.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa
from werkzeug.security import generate_password_hash

from microblog.accounts.models import Follow, User
from microblog.accounts.services import FOLLOWER
from microblog.clock import utcnow
from microblog.extensions import db
from microblog.messages.models import Message
from microblog.messages.services import KIND
from microblog.notifications.models import Notification
from microblog.posts.models import Post

PHRASES = Path(__file__).parent / "phrases"


@dataclass(frozen=True)
class Person:
    """A user who writes in the language of a phrase book."""

    name: str
    about_me: str


@dataclass(frozen=True)
class PhraseBook:
    """Phrases in `language` (a BCP 47 tag).

    A post is an opening, a thought and a closing; a reply begins with an answer instead. Each of the `letters` is a
    conversation of two of the `people`: a private message, the answer and the reply to it.
    """

    language: str
    people: tuple[Person, ...]
    openings: tuple[str, ...]
    answers: tuple[str, ...]
    thoughts: tuple[str, ...]
    closings: tuple[str, ...]
    letters: tuple[tuple[str, str, str], ...]

    @classmethod
    def load(cls, path: Path) -> PhraseBook:
        """Read a phrase book from a JSON file."""
        parts = json.loads(path.read_text(encoding="utf-8"))
        people = tuple(Person(**person) for person in parts.pop("people"))
        letters = tuple(tuple(letter) for letter in parts.pop("letters"))
        language = parts.pop("language")
        return cls(language, people, letters=letters, **{name: tuple(phrases) for name, phrases in parts.items()})

    def posts(self, chance: random.Random) -> Iterator[str]:
        """Yield posts without end, in an order of `chance`, none twice."""
        return _combined(self.openings, self.thoughts, self.closings, chance)

    def replies(self, chance: random.Random) -> Iterator[str]:
        """Yield texts that follow the name of the addressee, without end, none twice."""
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


BOOKS = tuple(PhraseBook.load(PHRASES / f"{language}.json") for language in ("en", "es", "ko", "ru"))
TALKATIVE = 0.45  # how often somebody answers what was said last
SOON = 1 / 2000  # of the whole time: an answer comes no later (of a year, some four hours)


class Speaker(NamedTuple):
    """An author with a name and a language (BCP 47)."""

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


CORRESPONDENTS = 6  # people who write to the first one: of each language the first, of some the second
UNANSWERED = 3  # of them, whose last message is unread
LATELY = timedelta(days=20)  # the time of all this
FOLLOWERS = 8  # the newest, who are told of
NEW_FOLLOWERS = 2  # of them, of whom the first one has yet to read

Somebody = tuple[int, str]  # an id, and the language (BCP 47) that they write in


def add_messages(reader: int, others: Sequence[Somebody], now: datetime, chance: random.Random) -> None:
    """Let some of `others` write to the `reader` in the days before `now`, and be answered.

    The reader is told of these, and of the newest followers. All in the caller's transaction.
    """
    messages = [
        message for place, one in enumerate(others[:CORRESPONDENTS]) for message in _letters(reader, one, place)
    ]
    for message in messages:
        message["timestamp"] = now - LATELY * message["timestamp"] - timedelta(minutes=chance.randint(1, 50))
        message["read_at"] = message["timestamp"] + timedelta(minutes=1) if message.pop("is_read") else None
    if not messages:
        return
    db.session.execute(sa.insert(Message), messages)
    db.session.execute(sa.insert(Notification), [*_told_of_letters(reader, messages), *_told_of_followers(reader)])


def _letters(reader: int, other: Somebody, place: int) -> Iterator[dict[str, Any]]:
    """A message, an answer, and another message; `timestamp` is how far back it is, from 0 to 1."""
    other_id, language = other
    book = next(book for book in BOOKS if book.language == language)
    texts = book.letters[place // len(BOOKS)]
    pairs = [(other_id, reader), (reader, other_id), (other_id, reader)]
    for number, (text, (sender_id, recipient_id)) in enumerate(zip(texts, pairs, strict=True)):
        yield {
            "sender_id": sender_id,
            "recipient_id": recipient_id,
            "body": text,
            "timestamp": (place + 1 - number / 4) / (CORRESPONDENTS + 1),
            "is_read": number < 2 or place >= UNANSWERED,
        }


def _told_of_letters(reader: int, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    last = {message["sender_id"]: message for message in messages if message["recipient_id"] == reader}
    return [
        _told(reader, KIND, sender_id, message["timestamp"], message["read_at"]) for sender_id, message in last.items()
    ]


def _told_of_followers(reader: int) -> list[dict[str, Any]]:
    newest = sa.select(Follow.follower_id, Follow.created_at).where(Follow.followed_id == reader)
    rows = db.session.execute(newest.order_by(Follow.created_at.desc(), Follow.follower_id).limit(FOLLOWERS)).all()
    return [
        _told(reader, FOLLOWER, follower_id, since, None if place < NEW_FOLLOWERS else since + timedelta(hours=1))
        for place, (follower_id, since) in enumerate(rows)
    ]


def _told(reader: int, name: str, actor_id: int, at: datetime, read_at: datetime | None) -> dict[str, Any]:
    happened = {"timestamp": at, "updated_at": read_at or at, "read_at": read_at}
    return {"user_id": reader, "name": name, "subject": str(actor_id), "actor_id": actor_id, "payload": {}} | happened


BATCH = 5000  # rows
YEAR = timedelta(days=365)
MOST_FOLLOWED = 200  # people whom one follows
OWN_POSTS = 250  # by the user that one signs in as
SEEN_WITHIN = timedelta(days=30)
NOBODY = ""  # a hash that no password has
ABOUT_DEMO = "You. Post something, follow somebody, export it all."


class Resident(NamedTuple):
    """A user that is in the database."""

    id: int
    speaker: Speaker


def fill_database(name: str, password: str, *, users: int, posts: int, seed: int, now: datetime | None = None) -> None:
    """Add `users` people, the first called `name`, and `posts` posts of the year up to `now`; commit them all.

    The first one writes 250 posts, or all if there are fewer; the others share the rest, and nobody can sign in as
    one of them. Some of them have written to the first one. Raises IntegrityError if one of the names is taken.
    """
    now = now or utcnow()
    chance = random.Random(seed)
    residents = _add_people(name, password, users, now, chance)
    _add_posts(residents, posts, now, chance)
    _add_followers(residents, now, chance)
    first, *others = residents
    add_messages(first.id, [(other.id, other.speaker.language) for other in others], now, chance)
    _see_them_act()
    db.session.commit()


def _add_people(name: str, password: str, count: int, now: datetime, chance: random.Random) -> list[Resident]:
    """They come before the first post, some earlier than others."""
    first = Speaker(name, BOOKS[0].language)
    speakers = [first, *(speaker for speaker, _about in itertools.islice(_people(), count - 1))]
    abouts = itertools.chain([ABOUT_DEMO], (about for _speaker, about in _people()))
    password_hash = generate_password_hash(password)
    ids: list[int] = []
    rows = (
        {
            "username": speaker.name,
            "email": f"{speaker.name}@example.com",
            "password_hash": password_hash if speaker is first else NOBODY,
            "about_me": about,
            "created_at": now - YEAR * (1 + chance.random()),
            "last_seen_at": now - SEEN_WITHIN * chance.random(),
        }
        for speaker, about in zip(speakers, abouts, strict=False)
    )
    insert = sa.insert(User).returning(User.id, sort_by_parameter_order=True)
    for batch in _batches(rows):
        ids.extend(db.session.scalars(insert, batch))
    return [Resident(*pair) for pair in zip(ids, speakers, strict=True)]


def _people() -> Iterator[tuple[Speaker, str]]:
    """Everybody but the first, without an end: a dozen with a name of their own, then their namesakes."""
    for turn in itertools.count():
        for people in zip(*(book.people for book in BOOKS), strict=True):
            for book, person in zip(BOOKS, people, strict=True):
                yield Speaker(f"{person.name}{turn or ''}", book.language), person.about_me


def _add_posts(residents: list[Resident], count: int, now: datetime, chance: random.Random) -> None:
    """In the order of time, as they would have come: then the ids run with it."""
    ids = {resident.speaker: resident.id for resident in residents}
    speakers = [resident.speaker for resident in residents]
    rows = (
        {
            "user_id": ids[said.speaker],
            "body": said.text,
            "language": said.speaker.language,  # known, and so not asked for
            "timestamp": now - YEAR * (1 - said.moment),
        }
        for said in conversations(speakers, count, OWN_POSTS, chance)
    )
    for batch in _batches(rows):
        db.session.execute(sa.insert(Post), batch)


def _add_followers(residents: list[Resident], now: datetime, chance: random.Random) -> None:
    """The first one follows many, and leaves some to be discovered; the others follow a few."""
    for batch in _batches(_follows([resident.id for resident in residents], now, chance)):
        db.session.execute(sa.insert(Follow), batch)


def _follows(ids: list[int], now: datetime, chance: random.Random) -> Iterator[dict[str, Any]]:
    for number, follower_id in enumerate(ids):
        others = len(ids) - 1
        wanted = min(MOST_FOLLOWED, others * 3 // 4) if number == 0 else min(chance.randint(2, 20), others // 2)
        for place in chance.sample(range(others), wanted):
            yield {
                "follower_id": follower_id,
                "followed_id": ids[place + (place >= number)],
                "created_at": now - YEAR * chance.random(),
            }


def _see_them_act() -> None:
    """Set `last_seen_at` of users to the time of their last post or follow, if that is later."""
    acts = (
        (Post.user_id, Post.timestamp),
        (Message.sender_id, Message.timestamp),
        (Follow.follower_id, Follow.created_at),
    )
    for actor_id, at in acts:
        last = sa.select(sa.func.max(at)).where(actor_id == User.id).scalar_subquery()
        seen = sa.update(User).where(User.last_seen_at < last).values(last_seen_at=last)
        db.session.execute(seen, execution_options={"synchronize_session": False})


def _batches(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    rows = iter(rows)
    while batch := list(itertools.islice(rows, BATCH)):
        yield batch
