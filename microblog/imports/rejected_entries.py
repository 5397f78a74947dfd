"""Entries that an import refused: stored while the file is read, listed and downloaded in its order.

The job's result contains only the first of them.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, cast

import sqlalchemy as sa
from flask_babel import gettext as _

from microblog.database import dialect_insert
from microblog.extensions import db
from microblog.imports.models import Refusal
from microblog.pagination import InvalidKey

BATCH = 2000  # refusals read, or deleted, at once
_KEY = re.compile(r"\d{1,9}", re.ASCII)


class Page(NamedTuple):
    """Some refusals, in the order of their file; and the keys of its neighbours, None where there is none.

    The next page is the one `after` the one key, the previous one `before` the other.
    """

    items: Sequence[Refusal]
    after: str | None
    before: str | None


def add(upload_id: str, refusals: Sequence[dict[str, Any]]) -> None:
    """Keep `refusals` (importer.Report.take_refusals) in the caller's transaction; one that is kept stays as it is."""
    if refusals:
        insert = dialect_insert(db.engine, Refusal.__table__).on_conflict_do_nothing()
        db.session.execute(insert, [{"upload_id": upload_id, **refusal} for refusal in refusals])


def exist(upload_id: str) -> bool:
    """Return whether there are any, and they have not had their time."""
    return db.session.scalar(sa.select(Refusal.place).where(Refusal.upload_id == upload_id).limit(1)) is not None


def page_of(upload_id: str, size: int, before: str | None = None, after: str | None = None) -> Page:
    """At most `size` refusals: the first, or those next to a key. Raises InvalidKey."""
    if before is not None and after is not None:
        raise InvalidKey
    if before is not None:
        ahead = _of(upload_id).where(Refusal.place < _place(before)).order_by(Refusal.place.desc())
        rows = db.session.scalars(ahead.limit(size + 1)).all()
        if len(rows) > size:
            items = rows[:size][::-1]
            return Page(items, str(items[-1].place), str(items[0].place))
    edge = _place(after or "0")  # the beginning is near: show it whole, not a page of two or three
    rows = db.session.scalars(_of(upload_id).where(Refusal.place > edge).order_by(Refusal.place).limit(size + 1)).all()
    items = rows[:size]
    return Page(
        items,
        str(items[-1].place) if len(rows) > size else None,
        str(items[0].place if items else edge + 1) if edge else None,
    )


def to_csv(upload_id: str) -> Iterator[str]:
    """All of them as a table for people, a batch of lines at a time, with headings in the language in force.

    No field can be taken for a formula: they are numbers, sentences of ours, and addresses that begin with http.
    """
    yield "\ufeff" + _lines([[_("Number"), _("Line"), _("Reason"), _("Address")]])  # the mark is for spreadsheets
    fields = sa.select(Refusal.place, Refusal.number, Refusal.line, Refusal.reason, Refusal.address)
    batch = fields.where(Refusal.upload_id == upload_id).order_by(Refusal.place).limit(BATCH)
    place = 0
    while True:
        with db.engine.connect() as connection:  # for no longer: a reader may be slow
            rows = connection.execute(batch.where(Refusal.place > place)).all()
        if not rows:
            return
        place = rows[-1].place
        yield _lines([row[1:] for row in rows])


def delete_all_of(upload_id: str) -> None:
    """Delete those of one upload, and commit that, a batch at a time; where there are none, nothing is committed."""
    some = sa.select(Refusal.place).where(Refusal.upload_id == upload_id).limit(BATCH)
    delete = sa.delete(Refusal).where(Refusal.upload_id == upload_id, Refusal.place.in_(some))
    while cast("sa.CursorResult[Any]", db.session.execute(delete)).rowcount:
        db.session.commit()


def _of(upload_id: str) -> sa.Select[Refusal]:
    return sa.select(Refusal).where(Refusal.upload_id == upload_id)


def _place(key: str) -> int:
    if _KEY.fullmatch(key) is None:
        raise InvalidKey
    return int(key)


def _lines(rows: Sequence[Sequence[Any]]) -> str:
    lines = io.StringIO()
    csv.writer(lines).writerows(rows)
    return lines.getvalue()
