"""Import an uploaded file: store its posts in batches, each post at most once, and report every entry."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import partial
from itertools import islice
from typing import IO, Any

import sqlalchemy as sa
from flask_babel import format_decimal, ngettext
from flask_babel import gettext as _
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import InstrumentedAttribute

from microblog.extensions import db
from microblog.imports import cleanup, rejected_entries
from microblog.imports.duplicates import Count, OutOfOrder, count_anywhere, count_in_order
from microblog.imports.json_reader import BrokenJson, Entry, EntryReader, EntryTooLarge
from microblog.imports.models import LONGEST_ADDRESS, Upload
from microblog.imports.parsers import FORMATS, Draft, LeftOut, Refused
from microblog.imports.uploads import current_storage
from microblog.posts.language_detection import detect_language
from microblog.posts.models import Post
from microblog.posts.tokenizer import indexed
from microblog.taskqueue.interface import JobError, Progress
from microblog.taskqueue.worker import JobTask
from microblog.validators import replace_unstorable

SHOWN = 100  # refusals that the result has
# Refusals that are kept of a file, and of a user (cleanup.delete_refused): what is all brackets must not fill the disk.
LISTED = 1_000_000


class Report:
    """Counts what was made of each entry. It has no texts of posts: where they are told by number, line and address."""

    def __init__(self) -> None:
        self.read = 0  # entries
        self.posts = 0  # those of them that may come in
        self.kept = 0  # entries of which all that may come in is in the database
        self._left_out: Counter[str] = Counter()
        self._refused = 0
        self._first: list[dict[str, Any]] = []
        self._new: list[dict[str, Any]] = []
        self._without_media = 0

    def note(self, entry: Entry, outcome: Draft | LeftOut | Refused) -> None:
        """Count one entry."""
        self.read += 1
        if isinstance(outcome, Draft):
            self.posts += 1
            self._without_media += outcome.has_media
        elif isinstance(outcome, LeftOut):
            self._left_out[outcome.kind] += 1
        else:
            self._refused += 1
            where = {"number": entry.number, "line": entry.line, "address": _address(entry.value)}
            refusal = where | {"reason": str(outcome)}
            if self._refused <= SHOWN:
                self._first.append(refusal)
            if self._refused <= LISTED:
                self._new.append(refusal | {"place": self.read})

    def take_refusals(self) -> list[dict[str, Any]]:
        """The refusals since this was asked last, as models.Refusal has them; LISTED at most of all."""
        refusals, self._new = self._new, []
        return refusals

    def to_dict(self, imported: int) -> dict[str, Any]:
        """The report in JSON; `imported` posts came in, so that the others were there already."""
        return {
            "read": self.read,
            "imported": imported,
            "known": max(0, self.posts - imported),
            "without_media": self._without_media,
            "left_out": dict(self._left_out),
            "refused": self._refused,
            "refusals": self._first,
        }


def _address(value: Any) -> str | None:
    """Return the URL of the original post, if the file has one that can be stored and sent."""
    note = value.get("object") if isinstance(value, dict) else None
    address = note.get("url") if isinstance(note, dict) else None
    if not isinstance(address, str) or not address.startswith(("https://", "http://")):
        return None
    return replace_unstorable(address[:LONGEST_ADDRESS])


ADVISORY_LOCK = 0x696D70  # of all that lock by number in this database, the imports

Numbered = tuple[Draft, int]  # a post, and the how-manieth of its kind in the file it is


def store_posts(
    upload_id: str, user_id: int, batch: Sequence[Numbered], refused: Sequence[dict[str, Any]] = ()
) -> None:
    """Keep what is new of a user's `batch`, and commit that: one transaction that none of their imports comes between.

    What was `refused` beside it is noted with it. Raises LookupError if the upload, or its user, is gone.
    """
    # To find their languages and words takes longer than to write them: nobody else shall wait for that, too.
    found = {body: _found_in(body) for body in {draft.body for draft in _new(batch, user_id)}}
    _lock(upload_id, user_id)
    rejected_entries.add(upload_id, refused)
    if new := _new(batch, user_id):
        rows = [
            {"body": body, "timestamp": timestamp, "user_id": user_id, "imported": True}
            | (found.get(body) or _found_in(body))
            for body, timestamp, _has_media in new
        ]
        db.session.execute(sa.insert(Post.__table__), rows)  # type: ignore[arg-type]
        _count(upload_id, user_id, len(new))
    db.session.commit()


def _new(batch: Sequence[Numbered], user_id: int) -> list[Draft]:
    """Those of `batch` that the user does not have."""
    known = _known([draft for draft, _number in batch], user_id)
    return [draft for draft, number in batch if not known or number > known[draft.body, draft.timestamp]]


def _found_in(body: str) -> dict[str, Any]:
    """The columns that come of a body, which would else be filled while the row is written (posts/types.py)."""
    return {"language": detect_language(body), "terms": indexed(body)}


def _lock(upload_id: str, user_id: int) -> None:
    """Let nobody else import for this user until the transaction ends.

    On SQLite whoever writes first keeps all others from writing, so that what is read after it is still so at the end.
    """
    _count(upload_id, user_id, 0)
    if db.engine.dialect.name == "postgresql":
        db.session.execute(sa.select(sa.func.pg_advisory_xact_lock(ADVISORY_LOCK, user_id)))


def _count(upload_id: str, user_id: int, new: int) -> None:
    own = sa.update(Upload).where(Upload.id == upload_id, Upload.user_id == user_id)
    counted = own.values(imported=Upload.imported + new).returning(Upload.id)
    if db.session.scalar(counted.execution_options(synchronize_session=False)) is None:
        db.session.rollback()
        raise LookupError(f"{upload_id} is gone")


def _known(drafts: Sequence[Draft], user_id: int) -> Counter[tuple[str, datetime]]:
    """Return how many equal posts of each draft the user has."""
    if not drafts:
        return Counter()
    times = [draft.timestamp for draft in drafts]
    between = sa.select(Post.id).where(Post.user_id == user_id, Post.timestamp.between(min(times), max(times)))
    if db.session.scalar(between.limit(1)) is None:  # as in an account that is empty, or imports in order
        return Counter()
    # Of thousands that share a moment, those with texts of the batch alone; two lists, which either database looks up
    # at once, while a list of pairs is compared one by one.
    same = _one_of(Post.timestamp, times), _one_of(Post.body, [draft.body for draft in drafts])
    alike = sa.select(Post.body, Post.timestamp, sa.func.count()).where(Post.user_id == user_id, *same)
    counted = db.session.execute(alike.group_by(Post.body, Post.timestamp))
    return Counter({(body, time): count for body, time, count in counted})


def _one_of(column: InstrumentedAttribute[Any], values: list[Any]) -> sa.ColumnElement[bool]:
    """The condition that `column` is one of `values`, padded to the size of a batch so that statements are equal."""
    if db.engine.dialect.name == "postgresql":  # thousands of parameters take longer to be read than to be looked up
        return column == sa.any_(sa.cast(values, ARRAY(column.type)))
    return column.in_(values)


BATCH = 4000  # entries read, and posts kept, at once


def read_upload(task: JobTask, upload_id: str, user_id: int) -> dict[str, Any]:
    """Keep the posts of an upload, with the task's progress in bytes; returns the report (Report.to_dict()).

    What another attempt has kept is not kept again; what the user's other imports refused is no longer listed. Raises
    JobError, with a sentence that names the place, where the file is broken; what came before that is kept.
    """
    storage, path = current_storage(), f"{upload_id}.json"
    reports = [Report()]  # one of each reading
    describe = partial(_posts_read, reports)
    with storage.open(path) as file, Progress(task, storage.size(path), describe=describe) as progress:
        cleanup.delete_refused(user_id, but=upload_id)
        try:
            _read(file, upload_id, user_id, count_in_order(), reports[0], progress)
        except OutOfOrder:  # once more from the beginning, to count equal posts wherever they are
            file.seek(0)
            reports.append(Report())
            with count_anywhere() as count:
                _read(file, upload_id, user_id, count, reports[1], progress, kept=reports[0].kept)
    return reports[-1].to_dict(_imported(upload_id))


def _read(
    file: IO[bytes], upload_id: str, user_id: int, count: Count, report: Report, progress: Progress, kept: int = 0
) -> None:
    """Read `file` to its end; the progress that is yet to be made is shared out over its bytes.

    The first entries, as many as `kept`, are counted only: another reading has kept them.
    """
    entries = EntryReader(file, FORMATS)
    before, total = progress.current, progress.total or 1
    for batch in _batches(entries, report, count):
        refusals = report.take_refusals()
        if (batch or refusals) and report.read > kept:
            store_posts(upload_id, user_id, batch, refusals)
        report.kept = report.read
        progress.advance(before + entries.bytes_read * (total - before) // total - progress.current)
    if not entries.found:
        raise JobError(_("This is neither an archive of posts from here nor a Mastodon outbox."))


def _batches(entries: EntryReader, report: Report, count: Count) -> Iterator[list[Numbered]]:
    """The posts of each BATCH entries; a batch may be empty. Raises JobError where the file is broken."""
    reading = iter(entries)
    more = True
    while more:
        batch: list[Numbered] = []
        before, broken = report.read, None
        try:
            for entry in islice(reading, BATCH):
                outcome = _outcome(entry)
                report.note(entry, outcome)
                if isinstance(outcome, Draft):
                    batch.append((outcome, count(outcome)))
        except BrokenJson as error:
            broken = error
        yield batch
        if broken is not None:
            raise JobError(_sentence(broken)) from broken
        more = report.read > before


def _outcome(entry: Entry) -> Draft | LeftOut | Refused:
    read: Callable[[Any], Draft] = FORMATS[entry.key]
    try:
        return read(entry.value)
    except (LeftOut, Refused) as reason:
        return reason


def _imported(upload_id: str) -> int:
    upload = db.session.get(Upload, upload_id, populate_existing=True)
    return upload.imported if upload else 0


def _sentence(broken: BrokenJson) -> str:
    place = {"line": format_decimal(broken.line), "column": format_decimal(broken.column)}
    if isinstance(broken, EntryTooLarge):
        told = _("What begins in line %(line)s, column %(column)s of the file is too long to be a post.", **place)
    else:
        told = _("The file is broken in line %(line)s, column %(column)s: from there on it is not JSON.", **place)
    kept = _("What came before that has been imported.")
    return f"{told} {kept}"


def _posts_read(reports: list[Report], *_progress: int | None) -> str:
    posts = max(report.posts for report in reports)  # a second reading takes nothing back
    told: str = ngettext("%(count)s post read", "%(count)s posts read", posts, count=format_decimal(posts))
    return told
