"""The badges of the navigation: with 1,000,000 messages and notifications ÷ with 10,000, and their queries.

They are measured with almost all rows read, which is the usual case, and with none read.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from flask import Flask

from bench.figures import Figure, compare, side_by_side, state
from bench.servers import Servers, add_users
from microblog.extensions import db
from microblog.messages.models import Message
from microblog.notifications import unread_counts
from microblog.notifications.models import Notification
from tests.support.databases import recorded_statements

SMALL, LARGE = 10_000, 1_000_000  # rows of each kind
USERS = 50  # one of them receives half of all rows
NEW = 20  # unread rows of the reader, in the case that almost all are read
ROUNDS = 101
CALLS = 10  # in one measurement
BEGINNING = datetime(2025, 1, 1, tzinfo=UTC)


def run(servers: Servers) -> Iterator[Figure]:
    """Yield two figures for each case and database."""
    for database in servers.databases:
        with servers.app(servers.environment(database)) as few, servers.app(servers.environment(database)) as many:
            for app, rows in ((few, SMALL), (many, LARGE)):
                with app.app_context():
                    reader = _fill(rows)
            yield from _figures(f"{NEW} unread, {database}", few, many, reader)
            for app in (few, many):
                with app.app_context():
                    _mark_all_unread()
            yield from _figures(f"all unread, {database}", few, many, reader)


def _figures(case: str, few: Flask, many: Flask, reader: int) -> Iterator[Figure]:
    spent = side_by_side(lambda: _milliseconds(many, reader), lambda: _milliseconds(few, reader), rounds=ROUNDS)
    yield compare(f"badges, {case}: {LARGE:,} ÷ {SMALL:,} rows", *spent, "ms", at_most=1.5)
    yield state(f"badges, {case}: queries", _queries(many, reader), "", at_most=_queries(few, reader))


def _fill(rows: int) -> int:
    """Add `rows` messages and as many notifications, the newest unread. Return the id of the user with half of them."""
    reader, *others = add_users(USERS)
    people = {n: (reader if n % 2 else others[n % 7], others[7 + n % 40]) for n in range(SMALL)}
    times = {n: BEGINNING + timedelta(seconds=n) for n in people}
    _multiply(
        Message,
        [
            {"recipient_id": to, "sender_id": by, "body": f"Word {n}", "timestamp": times[n], "read_at": BEGINNING}
            for n, (to, by) in people.items()
        ],
        rows // SMALL,
    )
    _multiply(
        Notification,
        [
            {"user_id": to, "name": "follower", "subject": str(n), "payload": {}, "read_at": BEGINNING}
            | {"timestamp": times[n], "updated_at": times[n]}
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
        if model is Notification:  # name and subject are unique for a user
            columns["name"] = sa.literal(f"copy {copy}")
        copied = sa.select(*columns.values()).where(model.id < first + len(rows))
        db.session.execute(sa.insert(model).from_select(list(columns), copied, include_defaults=False))
    db.session.commit()


def _mark_all_unread() -> None:
    for model in (Message, Notification):
        db.session.execute(sa.update(model).values(read_at=None))
        db.session.commit()
    _analyse()


def _analyse() -> None:
    """Update the planner's statistics, as autovacuum does."""
    with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("ANALYZE" if db.engine.dialect.name == "sqlite" else "VACUUM ANALYZE"))


def _milliseconds(app: Flask, reader: int) -> float:
    """Return the milliseconds that the counts of one page take."""
    with app.app_context():
        unread_counts.unread_counts(reader)  # connects
        began = time.perf_counter()
        for _call in range(CALLS):
            unread_counts.unread_counts(reader)
        return (time.perf_counter() - began) * 1000 / CALLS


def _queries(app: Flask, reader: int) -> int:
    with app.app_context(), recorded_statements() as statements:
        unread_counts.unread_counts(reader)
    return len(statements)
