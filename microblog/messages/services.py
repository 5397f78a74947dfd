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
from microblog.messages.models import MAX_MESSAGE, Message
from microblog.notifications import unread_counts
from microblog.notifications.models import Notification
from microblog.notifications.push import push
from microblog.notifications.services import mark_notifications_read, notifications_about, notify
from microblog.pagination import FIRST_PAGE, Page, PageQuery, PageRequest
from microblog.validators import MAX_ID, is_blank

BADGE = "messages"

#: The kind of notification about new messages: one for each sender.
KIND = "message"


def normalize_body(text: str) -> str:
    """Return `text` without surrounding white space.

    Raises ValueError, with a message for the user, if the result is empty or too long.
    """
    body = text.strip()
    if is_blank(body):
        raise ValueError(_("A message needs at least one character that is not a space."))
    if len(body) > MAX_MESSAGE:
        raise ValueError(
            _(
                "A message has at most %(limit)d characters; this one has %(length)d.",
                limit=MAX_MESSAGE,
                length=len(body),
            )
        )
    return body


class RecipientUnavailable(Exception):
    """Raised if the recipient or the sender has just been deleted."""


def send_message(sender: User, recipient: User, body: str) -> Message:
    """Send a message, commit, and notify the recipient's open pages.

    `body` has at most models.MAX_MESSAGE characters. Raises ValueError if sender and recipient are the same user, and
    RecipientUnavailable.
    """
    if sender.id == recipient.id:
        raise ValueError("users cannot send messages to themselves")
    recipient_id = recipient.id
    message = Message(sender_id=sender.id, recipient_id=recipient_id, body=body)
    db.session.add(message)
    try:
        notification = notify(recipient_id, KIND, str(sender.id), actor_id=sender.id)
        db.session.commit()
    except IntegrityError as error:
        db.session.rollback()
        raise RecipientUnavailable from error
    push(recipient_id, notification)
    return message


def messages_received_by(reader: User, page_request: PageRequest = FIRST_PAGE) -> Page[Message]:
    """Return a page of the messages that `reader` received. Raises InvalidKey."""
    return _page(_received(reader).options(joinedload(Message.sender, innerjoin=True)), page_request)


def messages_sent_by(reader: User, page_request: PageRequest = FIRST_PAGE) -> Page[Message]:
    """Return a page of the messages that `reader` sent. Raises InvalidKey."""
    return _page(_sent(reader).options(joinedload(Message.recipient, innerjoin=True)), page_request)


def find_messages(reader: User, ids: Iterable[int]) -> list[Message]:
    """Return the messages with these `ids` that `reader` sent or received and has not deleted, in any order."""
    has_id = Message.id.in_([message_id for message_id in ids if 0 < message_id <= MAX_ID])
    return [
        message
        for query in (_received(reader), _sent(reader))
        for message in db.session.scalars(
            query.where(has_id).options(joinedload(Message.sender), joinedload(Message.recipient))
        )
    ]


def messages_between(reader: User, other: User, page_request: PageRequest = FIRST_PAGE) -> Page[Message]:
    """Return a page of the messages between `reader` and `other` that `reader` has not deleted.

    Raises InvalidKey. The database reads at most one page from each of the two.
    """

    def nearest_messages(edge: sa.Tuple | None, upward: bool, rows: int) -> sa.Select[Message]:
        received = _received(reader).where(Message.sender_id == other.id)
        sent = _sent(reader).where(Message.recipient_id == other.id)
        nearest = []
        for query in (received, sent):
            ids = query.with_only_columns(Message.id)
            page = pagination.after_key(ids, (Message.timestamp, Message.id), edge, upward).limit(rows).subquery()
            nearest.append(sa.select(page.c.id))
        return sa.select(Message).where(Message.id.in_(sa.union_all(*nearest)))

    return _page(nearest_messages, page_request)


def mark_messages_read(reader: User, messages: Iterable[Message]) -> set[int]:
    """Mark those of `messages` as read that `reader` received and has not read, and commit. Return their ids."""
    reader_id = reader.id
    new = {message.id: message.sender_id for message in messages if message.recipient_id == reader_id}
    query = sa.update(Message).where(Message.id.in_(new), Message.recipient_id == reader_id, Message.read_at.is_(None))
    marked = set(db.session.scalars(query.values(read_at=utcnow()).returning(Message.id)))
    if marked:
        _update_notifications(reader_id, {new[message_id] for message_id in marked})
        db.session.commit()
        push(reader_id)
    return marked


def delete_message(reader: User, message_id: int) -> bool:
    """Delete a message for `reader` only, and commit. Return False if they have no such message."""
    now, reader_id = utcnow(), reader.id
    update = sa.update(Message).where(Message.id == message_id)
    as_sender = update.where(Message.sender_id == reader_id, Message.sender_deleted_at.is_(None))
    as_recipient = update.where(Message.recipient_id == reader_id, Message.recipient_deleted_at.is_(None))
    values = {"recipient_deleted_at": now, "read_at": sa.func.coalesce(Message.read_at, now)}
    sent = db.session.scalars(as_sender.values(sender_deleted_at=now).returning(Message.id)).all()
    senders = set(db.session.scalars(as_recipient.values(values).returning(Message.sender_id)))
    by_both = (Message.sender_deleted_at.is_not(None), Message.recipient_deleted_at.is_not(None))
    db.session.execute(sa.delete(Message).where(Message.id == message_id, *by_both))
    _update_notifications(reader_id, senders)
    db.session.commit()
    if senders:
        push(reader_id)
    return bool(sent or senders)


def count_unread_by_sender(reader_id: int, sender_ids: Iterable[int]) -> dict[int, int]:
    """Return the number of the reader's unread messages by sender, without senders that have none.

    At most unread_counts.MAX_COUNT messages of each sender are counted.
    """
    senders = list(set(sender_ids))
    unread = [sa.select(Message.id).where(_unread(reader_id), Message.sender_id == sender) for sender in senders]
    numbers = [
        sa.select(sa.func.count()).select_from(query.limit(unread_counts.MAX_COUNT).subquery()).scalar_subquery()
        for query in unread
    ]
    counted = db.session.execute(sa.select(*numbers)).one() if numbers else ()
    return {sender: number for sender, number in zip(senders, counted, strict=True) if number}


@unread_counts.counts_unread(BADGE)
def unread_message_count(user_id: int) -> int:
    """Return the number of unread messages of a user, at most unread_counts.MAX_COUNT."""
    return unread_counts.limited_count(sa.select(Message.id).where(_unread(user_id)))


def _received(reader: User) -> sa.Select[Message]:
    return sa.select(Message).where(
        Message.recipient_id == reader.id, Message.recipient_deleted_at.is_(None), _is_active(Message.sender_id)
    )


def _sent(reader: User) -> sa.Select[Message]:
    return sa.select(Message).where(
        Message.sender_id == reader.id, Message.sender_deleted_at.is_(None), _is_active(Message.recipient_id)
    )


def _unread(reader_id: int) -> sa.ColumnElement[bool]:
    return sa.and_(Message.recipient_id == reader_id, Message.read_at.is_(None), _is_active(Message.sender_id))


def _is_active(user_id: InstrumentedAttribute[int]) -> sa.ColumnElement[bool]:
    """Return the condition that excludes messages with users whose account is being deleted."""
    return user_id.not_in(User.ids_of_deleted())


def _update_notifications(reader_id: int, sender_ids: set[int]) -> None:
    """Mark the notifications of senders as read from whom the reader has no unread messages left."""
    # Read before the messages are counted: a message that arrives in between changes the timestamp of its notification,
    # which then stays unread.
    version = sa.tuple_(Notification.subject, Notification.timestamp)
    query = sa.select(Notification.subject, Notification.timestamp).where(
        Notification.user_id == reader_id,
        Notification.read_at.is_(None),
        notifications_about(KIND, map(str, sender_ids)),
    )
    if unread := db.session.execute(query).all():
        remaining = set(map(str, count_unread_by_sender(reader_id, sender_ids)))
        read = [(subject, timestamp) for subject, timestamp in unread if subject not in remaining]
        mark_notifications_read(reader_id, Notification.name == KIND, version.in_(read))


def _page(query: sa.Select[Message] | PageQuery[Message], page_request: PageRequest) -> Page[Message]:
    return pagination.newest_first(query, Message.timestamp, Message.id, page_request)
