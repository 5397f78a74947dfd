"""Demo data of any size: users who write in four languages, follow each other and reply to each other.

Posts are combined from the phrases in ``phrases/*.json``. Rows are inserted in batches of some thousands, and only one
batch is held in memory. The data depends on the seed alone, except for the timestamps, which end at `now`.
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
REPLY_PROBABILITY = 0.45  # probability that a post replies to the previous one
MAX_REPLY_DELAY = 1 / 2000  # longest delay of a reply, as a fraction of the whole period (four hours of a year)
CORRESPONDENTS = 6  # users who write to the first user; the languages take turns
UNANSWERED = 3  # correspondents whose last message is unread
MESSAGE_PERIOD = timedelta(days=20)  # the period of the messages
FOLLOWERS = 8  # newest followers that the first user is notified of
NEW_FOLLOWERS = 2  # of these, the ones whose notification is unread
BATCH = 5000  # rows
YEAR = timedelta(days=365)
MOST_FOLLOWED = 200  # users that the first user follows, at most
OWN_POSTS = 250  # posts of the first user
SEEN_WITHIN = timedelta(days=30)
UNUSABLE_PASSWORD_HASH = ""  # a password hash that no password matches
ABOUT_DEMO = "You. Post something, follow somebody, export it all."

Correspondent = tuple[int, str]  # a user's id and language (BCP 47)


@dataclass(frozen=True)
class Person:
    """A user who writes in the language of a phrase book."""

    name: str
    about_me: str


@dataclass(frozen=True)
class PhraseBook:
    """Phrases in one `language` (a BCP 47 tag), and `people` who write in it.

    A post is an opening, a thought and a closing; a reply begins with an answer instead. Each of the `direct_messages`
    is a conversation in three of them: a message, the answer, and the reply to the answer.
    """

    language: str
    people: tuple[Person, ...]
    openings: tuple[str, ...]
    answers: tuple[str, ...]
    thoughts: tuple[str, ...]
    closings: tuple[str, ...]
    direct_messages: tuple[tuple[str, str, str], ...]

    @classmethod
    def load(cls, path: Path) -> PhraseBook:
        """Read a phrase book from a JSON file."""
        parts = json.loads(path.read_text(encoding="utf-8"))
        people = tuple(Person(**person) for person in parts.pop("people"))
        direct_messages = tuple(tuple(texts) for texts in parts.pop("direct_messages"))
        language = parts.pop("language")
        return cls(
            language,
            people,
            direct_messages=direct_messages,
            **{name: tuple(phrases) for name, phrases in parts.items()},
        )

    def posts(self, rng: random.Random) -> Iterator[str]:
        """Yield posts endlessly, in random order, without repetition."""
        return _combined(self.openings, self.thoughts, self.closings, rng)

    def replies(self, rng: random.Random) -> Iterator[str]:
        """Yield replies endlessly, without repetition. The caller puts the mention in front."""
        return _combined(self.answers, self.thoughts, self.closings, rng)


def _combined(
    firsts: tuple[str, ...], thoughts: tuple[str, ...], closings: tuple[str, ...], rng: random.Random
) -> Iterator[str]:
    """Yield every combination once, without building a list, then again with the number of the round appended.

    Consecutive texts differ in all three parts.
    """
    first_ones, middle_ones, last_ones = (rng.sample(part, len(part)) for part in (firsts, thoughts, closings))
    for number in itertools.count():
        rest, first = divmod(number, len(first_ones))
        rest, middle = divmod(rest, len(middle_ones))
        turn, last = divmod(rest, len(last_ones))
        # The offsets make the slower indices change with the faster ones; every combination still occurs once a round.
        text = " ".join(
            (
                first_ones[first],
                middle_ones[(middle + first) % len(middle_ones)],
                last_ones[(last + 5 * middle + first) % len(last_ones)],
            )
        )
        yield f"{text} ({turn + 1})" if turn else text


BOOKS = tuple(PhraseBook.load(PHRASES / f"{language}.json") for language in ("en", "es", "ko", "ru"))


class Author(NamedTuple):
    """An author with a name and a language (BCP 47)."""

    name: str
    language: str


class TimedPost(NamedTuple):
    """One post; `moment` is its time as a fraction of the whole period, from 0 to 1."""

    author: Author
    text: str
    moment: float


def conversations(authors: Sequence[Author], count: int, of_first: int, rng: random.Random) -> Iterator[TimedPost]:
    """Yield `count` different posts, oldest first; `of_first` of them (or all) are written by the first author."""
    posts = {book.language: book.posts(rng) for book in BOOKS}
    replies = {book.language: book.replies(rng) for book in BOOKS}
    same_language = {book.language: [one for one in authors[1:] if one.language == book.language] for book in BOOKS}
    first, *others = authors
    remaining = of_first if others else count
    previous: Author | None = None
    time = 0.0
    for number in range(count):
        answered = previous if rng.random() < REPLY_PROBABILITY else None
        # The probability is the first author's share of the remaining posts, so that theirs are spread evenly.
        if rng.random() * (count - number) < remaining:
            author, remaining = first, remaining - 1
        else:
            author = rng.choice((answered and same_language[answered.language]) or others)
        if answered is not None and answered != author and answered.language == author.language:
            time += rng.random() * min(MAX_REPLY_DELAY, 1 / count)
            text = f"@{answered.name} {next(replies[author.language])}"
        else:
            time = max(time, (number + rng.random()) / count)
            text = next(posts[author.language])
        yield TimedPost(author, text, time)
        previous = author


def add_messages(reader: int, others: Sequence[Correspondent], now: datetime, rng: random.Random) -> None:
    """Add conversations of some of `others` with the `reader` in the days before `now`, in the caller's transaction.

    Also add the reader's notifications about these messages and about the newest followers.
    """
    messages = [
        message for place, one in enumerate(others[:CORRESPONDENTS]) for message in _conversation(reader, one, place)
    ]
    for message in messages:
        message["timestamp"] = now - MESSAGE_PERIOD * message["timestamp"] - timedelta(minutes=rng.randint(1, 50))
        message["read_at"] = message["timestamp"] + timedelta(minutes=1) if message.pop("is_read") else None
    if not messages:
        return
    db.session.execute(sa.insert(Message), messages)
    db.session.execute(
        sa.insert(Notification), [*_message_notifications(reader, messages), *_follower_notifications(reader)]
    )


def _conversation(reader: int, other: Correspondent, place: int) -> Iterator[dict[str, Any]]:
    """Yield three messages of a conversation; `timestamp` is the age as a fraction of MESSAGE_PERIOD, from 0 to 1."""
    other_id, language = other
    book = next(book for book in BOOKS if book.language == language)
    texts = book.direct_messages[place // len(BOOKS)]
    pairs = [(other_id, reader), (reader, other_id), (other_id, reader)]
    for number, (text, (sender_id, recipient_id)) in enumerate(zip(texts, pairs, strict=True)):
        yield {
            "sender_id": sender_id,
            "recipient_id": recipient_id,
            "body": text,
            "timestamp": (place + 1 - number / 4) / (CORRESPONDENTS + 1),
            "is_read": number < 2 or place >= UNANSWERED,
        }


def _message_notifications(reader: int, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    last = {message["sender_id"]: message for message in messages if message["recipient_id"] == reader}
    return [
        _notification(reader, KIND, sender_id, message["timestamp"], message["read_at"])
        for sender_id, message in last.items()
    ]


def _follower_notifications(reader: int) -> list[dict[str, Any]]:
    newest = sa.select(Follow.follower_id, Follow.created_at).where(Follow.followed_id == reader)
    rows = db.session.execute(newest.order_by(Follow.created_at.desc(), Follow.follower_id).limit(FOLLOWERS)).all()
    return [
        _notification(
            reader, FOLLOWER, follower_id, since, None if place < NEW_FOLLOWERS else since + timedelta(hours=1)
        )
        for place, (follower_id, since) in enumerate(rows)
    ]


def _notification(reader: int, name: str, actor_id: int, at: datetime, read_at: datetime | None) -> dict[str, Any]:
    times = {"timestamp": at, "updated_at": read_at or at, "read_at": read_at}
    return {"user_id": reader, "name": name, "subject": str(actor_id), "actor_id": actor_id, "payload": {}} | times


class InsertedUser(NamedTuple):
    """A user in the database."""

    id: int
    author: Author


def fill_database(name: str, password: str, *, users: int, posts: int, seed: int, now: datetime | None = None) -> None:
    """Add `users` users, the first called `name`, and `posts` posts of the year that ends at `now`, and commit.

    The first user writes 250 posts, or all if there are fewer, and has received messages from some of the others. The
    others share the remaining posts and have no usable password. Raises IntegrityError if a name is taken.
    """
    now = now or utcnow()
    rng = random.Random(seed)
    inserted = _add_people(name, password, users, now, rng)
    _add_posts(inserted, posts, now, rng)
    _add_followers(inserted, now, rng)
    first, *others = inserted
    add_messages(first.id, [(other.id, other.author.language) for other in others], now, rng)
    _update_last_seen()
    db.session.commit()


def add_posts(user_id: int, count: int) -> bool:
    """Write copies of a user's posts, in several transactions; return False if there is none to copy."""
    columns = [Post.user_id, Post.body, Post.language, Post.terms]
    existing = db.session.scalar(sa.select(sa.func.count()).where(Post.user_id == user_id)) or 0
    while existing and count:
        copies = min(existing, count, BATCH)
        posts = sa.select(*columns).where(Post.user_id == user_id).limit(copies)
        db.session.execute(sa.insert(Post).from_select(columns, posts))
        db.session.commit()  # SQLite has one writer: the running site waits for it
        existing, count = existing + copies, count - copies
    return existing > 0


def _add_people(name: str, password: str, count: int, now: datetime, rng: random.Random) -> list[InsertedUser]:
    """Insert the users; all of them were created before the first post."""
    first = Author(name, BOOKS[0].language)
    authors = [first, *(author for author, _about in itertools.islice(_people(), count - 1))]
    abouts = itertools.chain([ABOUT_DEMO], (about for _author, about in _people()))
    password_hash = generate_password_hash(password)
    ids: list[int] = []
    rows = (
        {
            "username": author.name,
            "email": f"{author.name}@example.com",
            "password_hash": password_hash if author is first else UNUSABLE_PASSWORD_HASH,
            "about_me": about,
            "created_at": now - YEAR * (1 + rng.random()),
            "last_seen_at": now - SEEN_WITHIN * rng.random(),
        }
        for author, about in zip(authors, abouts, strict=False)
    )
    insert = sa.insert(User).returning(User.id, sort_by_parameter_order=True)
    for batch in _batches(rows):
        ids.extend(db.session.scalars(insert, batch))
    return [InsertedUser(*pair) for pair in zip(ids, authors, strict=True)]


def _people() -> Iterator[tuple[Author, str]]:
    """Yield all users but the first, endlessly: the people of the phrase books, then the same with a number."""
    for round_number in itertools.count():
        for people in zip(*(book.people for book in BOOKS), strict=True):
            for book, person in zip(BOOKS, people, strict=True):
                yield Author(f"{person.name}{round_number or ''}", book.language), person.about_me


def _add_posts(inserted: list[InsertedUser], count: int, now: datetime, rng: random.Random) -> None:
    """Insert the posts, oldest first, so that their ids are in the order of time."""
    ids = {user.author: user.id for user in inserted}
    authors = [user.author for user in inserted]
    rows = (
        {
            "user_id": ids[post.author],
            "body": post.text,
            "language": post.author.language,  # set here, which avoids the language detection
            "timestamp": now - YEAR * (1 - post.moment),
        }
        for post in conversations(authors, count, OWN_POSTS, rng)
    )
    for batch in _batches(rows):
        db.session.execute(sa.insert(Post), batch)


def _add_followers(inserted: list[InsertedUser], now: datetime, rng: random.Random) -> None:
    """Let the first user follow many of the others, but not all, and the others a few."""
    for batch in _batches(_follows([user.id for user in inserted], now, rng)):
        db.session.execute(sa.insert(Follow), batch)


def _follows(ids: list[int], now: datetime, rng: random.Random) -> Iterator[dict[str, Any]]:
    for number, follower_id in enumerate(ids):
        others = len(ids) - 1
        count = min(MOST_FOLLOWED, others * 3 // 4) if number == 0 else min(rng.randint(2, 20), others // 2)
        for place in rng.sample(range(others), count):
            yield {
                "follower_id": follower_id,
                "followed_id": ids[place + (place >= number)],
                "created_at": now - YEAR * rng.random(),
            }


def _update_last_seen() -> None:
    """Set `last_seen_at` of users to the time of their last post or follow, if that is later."""
    actions = (
        (Post.user_id, Post.timestamp),
        (Message.sender_id, Message.timestamp),
        (Follow.follower_id, Follow.created_at),
    )
    for actor_id, at in actions:
        last = sa.select(sa.func.max(at)).where(actor_id == User.id).scalar_subquery()
        update = sa.update(User).where(User.last_seen_at < last).values(last_seen_at=last)
        db.session.execute(update, execution_options={"synchronize_session": False})


def _batches(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    rows = iter(rows)
    while batch := list(itertools.islice(rows, BATCH)):
        yield batch
