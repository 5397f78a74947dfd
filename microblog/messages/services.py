"""Private messages: send, list, read and delete. Only the two participants have access to a message."""

from __future__ import annotations

from collections.abc import Iterable

import sqlalchemy as sa
from flask_babel import gettext as _
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import InstrumentedAttribute, joinedload

from microblog import pagination
from microblog.accounts.models import User
from microblog.clock import utcnow
from microblog.extensions import db
from microblog.messages.models import MAX_LENGTH, Message
from microblog.notifications import unread_counts
from microblog.notifications.models import Notification
from microblog.notifications.push import push
from microblog.notifications.services import mark_notifications_read, notifications_about, notify
from microblog.pagination import Listing, Page
from microblog.validators import MAX_ID, is_blank


def normalize_body(text: str) -> str:
    """Return `text` without surrounding white space.

    Raises ValueError, with a sentence for the writer, if that is nothing or too much.
    """
    body = text.strip()
    if is_blank(body):
        raise ValueError(_("A message needs at least one character that is not a space."))
    if len(body) > MAX_LENGTH:
        raise ValueError(
            _(
                "A message has at most %(limit)d characters; this one has %(length)d.",
                limit=MAX_LENGTH,
                length=len(body),
            )
        )
    return body


BADGE = "messages"
#: The kind of notification that says who wrote to a user: one for each sender.
KIND = "message"


class RecipientUnavailable(Exception):
    """Whom the message was for, or who wrote it, has just been deleted."""


def send_message(sender: User, recipient: User, body: str) -> Message:
    """Send a message, and commit that; the recipient's open pages say so at once.

    `body` has at most models.MAX_LENGTH characters. Raises ValueError if both are the same, and RecipientUnavailable.
    """
    if sender.id == recipient.id:
        raise ValueError("nobody writes to themselves")
    recipient_id = recipient.id
    message = Message(sender_id=sender.id, recipient_id=recipient_id, body=body)
    db.session.add(message)
    try:
        told = notify(recipient_id, KIND, str(sender.id), actor_id=sender.id)
        db.session.commit()
    except IntegrityError as error:
        db.session.rollback()
        raise RecipientUnavailable from error
    push(recipient_id, told)
    return message


def messages_received_by(
    reader: User, before: str | None = None, after: str | None = None, size: int | None = None
) -> Page[Message]:
    """A page of what others wrote to `reader`; `before` and `after` are paging keys.

    It has at most `size` messages, or ``POSTS_PER_PAGE``; so has the other one. Raises InvalidKey.
    """
    return _page(_received(reader).options(joinedload(Message.sender, innerjoin=True)), before, after, size)


def messages_sent_by(
    reader: User, before: str | None = None, after: str | None = None, size: int | None = None
) -> Page[Message]:
    """A page of what `reader` wrote to others; `before` and `after` are paging keys. Raises InvalidKey."""
    return _page(_sent(reader).options(joinedload(Message.recipient, innerjoin=True)), before, after, size)


def find_message(reader: User, ids: Iterable[int]) -> list[Message]:
    """Those of the messages with these `ids` that `reader` wrote or received, and has not deleted, in any order."""
    these = Message.id.in_([one for one in ids if 0 < one <= MAX_ID])
    return [
        message
        for query in (_received(reader), _sent(reader))
        for message in db.session.scalars(
            query.where(these).options(joinedload(Message.sender), joinedload(Message.recipient))
        )
    ]


def messages_between(reader: User, other: User, before: str | None = None, after: str | None = None) -> Page[Message]:
    """A page of what `reader` and `other` wrote to each other, as `reader` sees it.

    `before` and `after` are paging keys. Raises InvalidKey. The database looks at no more than one page of either.
    """

    def of_either(edge: sa.Tuple | None, upward: bool, rows: int) -> sa.Select[Message]:
        theirs = _received(reader).where(Message.sender_id == other.id)
        own = _sent(reader).where(Message.recipient_id == other.id)
        nearest = []
        for query in (theirs, own):
            ids = query.with_only_columns(Message.id)
            page = pagination.after_key(ids, Message.timestamp, Message.id, edge, upward).limit(rows).subquery()
            nearest.append(sa.select(page.c.id))
        return sa.select(Message).where(Message.id.in_(sa.union_all(*nearest)))

    return _page(of_either, before, after)


def mark_messages_read(reader: User, messages: Iterable[Message]) -> set[int]:
    """Mark those of `messages` as read that `reader` received and has not read, and commit that; returns their ids."""
    reader_id = reader.id
    new = {message.id: message.sender_id for message in messages if message.recipient_id == reader_id}
    query = sa.update(Message).where(Message.id.in_(new), Message.recipient_id == reader_id, Message.read_at.is_(None))
    marked = set(db.session.scalars(query.values(read_at=utcnow()).returning(Message.id)))
    if marked:
        _settle(reader_id, {new[message_id] for message_id in marked})
        db.session.commit()
        push(reader_id)
    return marked


def delete_message(reader: User, message_id: int) -> bool:
    """Delete a message for `reader` alone, and commit that; False if they have no such message."""
    now, reader_id = utcnow(), reader.id
    this = sa.update(Message).where(Message.id == message_id)
    as_sender = this.where(Message.sender_id == reader_id, Message.sender_deleted_at.is_(None))
    as_recipient = this.where(Message.recipient_id == reader_id, Message.recipient_deleted_at.is_(None))
    read = {"recipient_deleted_at": now, "read_at": sa.func.coalesce(Message.read_at, now)}
    sent = db.session.scalars(as_sender.values(sender_deleted_at=now).returning(Message.id)).all()
    senders = set(db.session.scalars(as_recipient.values(read).returning(Message.sender_id)))
    by_both = (Message.sender_deleted_at.is_not(None), Message.recipient_deleted_at.is_not(None))
    db.session.execute(sa.delete(Message).where(Message.id == message_id, *by_both))
    _settle(reader_id, senders)
    db.session.commit()
    if senders:
        push(reader_id)
    return bool(sent or senders)


def unread_from(reader_id: int, sender_ids: Iterable[int]) -> dict[int, int]:
    """Return the number of unread messages of the reader by sender, without senders of none.

    Of each sender's at most unread_counts.MOST are counted.
    """
    senders = list(set(sender_ids))
    unread = [sa.select(Message.id).where(_unread(reader_id), Message.sender_id == sender) for sender in senders]
    numbers = [
        sa.select(sa.func.count()).select_from(query.limit(unread_counts.MOST).subquery()).scalar_subquery()
        for query in unread
    ]
    counted = db.session.execute(sa.select(*numbers)).one() if numbers else ()
    return {sender: number for sender, number in zip(senders, counted, strict=True) if number}


@unread_counts.counts_unread(BADGE)
def unread_message_count(user_id: int) -> int:
    """Return the number of unread messages of a user, at most unread_counts.MOST."""
    return unread_counts.limited_count(sa.select(Message.id).where(_unread(user_id)))


def _received(reader: User) -> sa.Select[Message]:
    return sa.select(Message).where(
        Message.recipient_id == reader.id, Message.recipient_deleted_at.is_(None), _is_here(Message.sender_id)
    )


def _sent(reader: User) -> sa.Select[Message]:
    return sa.select(Message).where(
        Message.sender_id == reader.id, Message.sender_deleted_at.is_(None), _is_here(Message.recipient_id)
    )


def _unread(reader_id: int) -> sa.ColumnElement[bool]:
    return sa.and_(Message.recipient_id == reader_id, Message.read_at.is_(None), _is_here(Message.sender_id))


def _is_here(user_id: InstrumentedAttribute[int]) -> sa.ColumnElement[bool]:
    """The condition that excludes messages with users whose account is being deleted."""
    return user_id.not_in(User.ids_of_deleted())


def _settle(reader_id: int, sender_ids: set[int]) -> None:
    """Delete the notification of a sender all of whose messages have been read."""
    # As they were before the messages are counted: what comes meanwhile makes its notice a newer one, which stays.
    notice = sa.tuple_(Notification.subject, Notification.timestamp)
    seen = sa.select(Notification.subject, Notification.timestamp).where(
        Notification.user_id == reader_id,
        Notification.read_at.is_(None),
        notifications_about(KIND, map(str, sender_ids)),
    )
    if told := db.session.execute(seen).all():
        left = set(map(str, unread_from(reader_id, sender_ids)))
        settled = [(subject, timestamp) for subject, timestamp in told if subject not in left]
        mark_notifications_read(reader_id, Notification.name == KIND, notice.in_(settled))


def _page(
    query: sa.Select[Message] | Listing[Message], before: str | None, after: str | None, size: int | None = None
) -> Page[Message]:
    return pagination.newest_first(query, Message.timestamp, Message.id, size, before, after)
