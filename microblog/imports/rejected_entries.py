"""Entries that an import rejected: stored while the file is read, listed and downloaded in the order of the file.

The job's result contains only the first of them.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from flask_babel import gettext as _

from microblog import pagination
from microblog.database import count_changed, dialect_insert
from microblog.extensions import db
from microblog.imports.models import RejectedEntry
from microblog.pagination import FIRST_PAGE, KeysetOrder, Page, PageRequest

BATCH = 2000  # rows read, or deleted, at once


_BY_PLACE: KeysetOrder[RejectedEntry] = KeysetOrder(
    lambda entry: str(entry.place), lambda text: sa.tuple_(pagination.parse_id(text)), ascending=True
)


def add(upload_id: str, entries: Sequence[dict[str, Any]]) -> None:
    """Insert `entries` (importer.Report.take_rejected) in the caller's transaction; keep rows that already exist."""
    if entries:
        insert = dialect_insert(db.engine, RejectedEntry.__table__).on_conflict_do_nothing()
        db.session.execute(insert, [{"upload_id": upload_id, **entry} for entry in entries])


def exist(upload_id: str) -> bool:
    """Return True if the upload has rejected entries that have not been deleted yet."""
    query = sa.select(RejectedEntry.place).where(RejectedEntry.upload_id == upload_id)
    return db.session.scalar(query.limit(1)) is not None


def page_of(upload_id: str, page_request: PageRequest = FIRST_PAGE) -> Page[RejectedEntry]:
    """Return a page of rejected entries in the order of the file. Raises InvalidKey."""
    query = sa.select(RejectedEntry).where(RejectedEntry.upload_id == upload_id)
    return pagination.page_of_rows(query, [RejectedEntry.place], _BY_PLACE, page_request)


def to_csv(upload_id: str) -> Iterator[str]:
    """Yield all rejected entries as CSV, a batch of lines at a time, with headings in the current locale.

    No field can be taken for a formula: they are numbers, this module's messages, and URLs that begin with http.
    """
    lines = "\ufeff" + _lines([[_("Number"), _("Line"), _("Reason"), _("Address")]])  # spreadsheets need the BOM
    fields = sa.select(
        RejectedEntry.place, RejectedEntry.number, RejectedEntry.line, RejectedEntry.reason, RejectedEntry.url
    )
    batch = fields.where(RejectedEntry.upload_id == upload_id).order_by(RejectedEntry.place).limit(BATCH)
    place = 0
    while lines:
        db.session.rollback()  # the client may be slow, and must not hold a connection meanwhile
        yield lines
        rows = db.session.execute(batch.where(RejectedEntry.place > place)).all()
        place = rows[-1].place if rows else place
        lines = _lines([row[1:] for row in rows])
    db.session.rollback()


def delete_by_upload(upload_id: str) -> None:
    """Delete the rejected entries of an upload, committing each batch.

    It neither commits nor rolls back if there are none: the transaction may contain the caller's launch.
    """
    some = sa.select(RejectedEntry.place).where(RejectedEntry.upload_id == upload_id).limit(BATCH)
    delete = sa.delete(RejectedEntry).where(RejectedEntry.upload_id == upload_id, RejectedEntry.place.in_(some))
    while count_changed(db.session, delete):
        db.session.commit()


def _lines(rows: Sequence[Sequence[Any]]) -> str:
    lines = io.StringIO()
    csv.writer(lines).writerows(rows)
    return lines.getvalue()
