"""A town of any size: people who speak four languages, follow each other, write, and answer.

Whatever its size, a statement is sent for some thousand rows, and no more than these are held in memory, beside
the people themselves. Everything hangs on the seed alone, but for the times, which end at `now`.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import sqlalchemy as sa
from werkzeug.security import generate_password_hash

from microblog.accounts.models import Follow, User
from microblog.clock import utcnow
from microblog.demo import letters
from microblog.demo.conversations import Speaker, conversations
from microblog.demo.phrases import BOOKS
from microblog.extensions import db
from microblog.messages.models import Message
from microblog.posts.models import Post

BATCH = 5000  # rows
YEAR = timedelta(days=365)
MOST_FOLLOWED = 200  # people whom one follows
OWN_POSTS = 250  # by the user that one signs in as
SEEN_WITHIN = timedelta(days=30)
NOBODY = ""  # a hash that no password has
ABOUT_DEMO = "You. Post something, follow somebody, export it all."


class Resident(NamedTuple):
    """Somebody who is in the database by now."""

    id: int
    speaker: Speaker


def fill(name: str, password: str, *, users: int, posts: int, seed: int, now: datetime | None = None) -> None:
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
    letters.add(first.id, [(other.id, other.speaker.language) for other in others], now, chance)
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
    """Whoever wrote or followed somebody later than they were seen was seen then."""
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
