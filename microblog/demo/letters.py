"""What whoever signs in to the demo finds waiting: private messages, and who followed and wrote meanwhile."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from microblog.accounts.followers import FOLLOWER
from microblog.accounts.models import Follow
from microblog.demo.phrases import BOOKS
from microblog.extensions import db
from microblog.messages.correspondence import KIND
from microblog.messages.models import Message
from microblog.notifications.models import Notification

CORRESPONDENTS = 6  # people who write to the first one: of each language the first, of some the second
UNANSWERED = 3  # of them, whose last message is unread
LATELY = timedelta(days=20)  # the time of all this
FOLLOWERS = 8  # the newest, who are told of
NEW_FOLLOWERS = 2  # of them, of whom the first one has yet to read

Somebody = tuple[int, str]  # an id, and the language (BCP 47) that they write in


def add(reader: int, others: Sequence[Somebody], now: datetime, chance: random.Random) -> None:
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
