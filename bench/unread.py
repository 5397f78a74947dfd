"""The numbers in the navigation: with 1,000,000 messages and notifications ÷ with 10,000, and their queries.

Once almost all have been read, as it is with people, and once none has.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from flask import Flask

from bench.figures import Figure, compare, side_by_side, state
from bench.house import House, add_users
from microblog.extensions import db
from microblog.messages.models import Message
from microblog.notifications import unread_counts
from microblog.notifications.models import Notification

SMALL, LARGE = 10_000, 1_000_000  # rows of each kind
USERS = 50  # of whom one gets half of all there is
NEW = 20  # of those that the reader has yet to read, where almost all are read
ROUNDS = 101
CALLS = 10  # of which one time is taken
BEGINNING = datetime(2025, 1, 1, tzinfo=UTC)


def run(house: House) -> Iterator[Figure]:
    """Two figures for each case and database."""
    for database in house.databases:
        with house.app(house.environment(database)) as few, house.app(house.environment(database)) as many:
            for app, rows in ((few, SMALL), (many, LARGE)):
                with app.app_context():
                    reader = _fill(rows)
            yield from _figures(f"{NEW} unread, {database}", few, many, reader)
            for app in (few, many):
                with app.app_context():
                    _forget_what_was_read()
            yield from _figures(f"all unread, {database}", few, many, reader)


def _figures(case: str, few: Flask, many: Flask, reader: int) -> Iterator[Figure]:
    spent = side_by_side(lambda: _milliseconds(many, reader), lambda: _milliseconds(few, reader), rounds=ROUNDS)
    yield compare(f"badges, {case}: {LARGE:,} ÷ {SMALL:,} rows", *spent, "ms", at_most=1.5)
    yield state(f"badges, {case}: queries", _queries(many, reader), "", at_most=_queries(few, reader))


def _fill(rows: int) -> int:
    """Messages and notifications, `rows` of each, of which the newest are unread; returns the id of who gets half."""
    reader, *others = add_users(USERS)
    people = {n: (reader if n % 2 else others[n % 7], others[7 + n % 40]) for n in range(SMALL)}
    moments = {n: BEGINNING + timedelta(seconds=n) for n in people}
    _multiply(
        Message,
        [
            {"recipient_id": to, "sender_id": by, "body": f"Word {n}", "timestamp": moments[n], "read_at": BEGINNING}
            for n, (to, by) in people.items()
        ],
        rows // SMALL,
    )
    _multiply(
        Notification,
        [
            {"user_id": to, "name": "follower", "subject": str(n), "payload": {}, "read_at": BEGINNING}
            | {"timestamp": moments[n], "updated_at": moments[n]}
            for n, (to, _by) in people.items()
        ],
        rows // SMALL,
    )
    for model, owner in ((Message, Message.recipient_id), (Notification, Notification.user_id)):
        newest = sa.select(model.id).where(owner == reader).order_by(model.id.desc()).limit(NEW)
        db.session.execute(sa.update(model).where(model.id.in_(newest)).values(read_at=None))
    db.session.commit()
    _analyse()
    return reader


def _multiply(model: type[Message] | type[Notification], rows: list[dict[str, Any]], times: int) -> None:
    """Add `rows`, and copies of them made by the database, so that there are `times` as many."""
    db.session.execute(sa.insert(model), rows)
    first = sa.select(sa.func.min(model.id)).scalar_subquery()
    for copy in range(1, times):
        columns = {name: getattr(model, name) for name in rows[0]}
        if model is Notification:  # no two of a user are about the same
            columns["name"] = sa.literal(f"copy {copy}")
        copied = sa.select(*columns.values()).where(model.id < first + len(rows))
        db.session.execute(sa.insert(model).from_select(list(columns), copied, include_defaults=False))
    db.session.commit()


def _forget_what_was_read() -> None:
    for model in (Message, Notification):
        db.session.execute(sa.update(model).values(read_at=None))
        db.session.commit()
    _analyse()


def _analyse() -> None:
    """As autovacuum does it."""
    with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("ANALYZE" if db.engine.dialect.name == "sqlite" else "VACUUM ANALYZE"))


def _milliseconds(app: Flask, reader: int) -> float:
    """What it takes to count for one page."""
    with app.app_context():
        unread_counts.unread_counts(reader)  # connects
        began = time.perf_counter()
        for _call in range(CALLS):
            unread_counts.unread_counts(reader)
        return (time.perf_counter() - began) * 1000 / CALLS


def _queries(app: Flask, reader: int) -> int:
    queries: list[str] = []

    def note(connection: object, cursor: object, statement: str, *rest: object) -> None:
        queries.append(statement)

    with app.app_context():
        sa.event.listen(db.engine, "before_cursor_execute", note)
        unread_counts.unread_counts(reader)
        sa.event.remove(db.engine, "before_cursor_execute", note)
    return len(queries)
