"""Import an uploaded file: store its posts in batches, each post at most once, and report on every entry."""

from __future__ import annotations

import os
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
from microblog.imports import rejected_entries, uploads
from microblog.imports.duplicates import Count, OutOfOrder, count_anywhere, count_in_order
from microblog.imports.json_reader import BrokenJson, Entry, EntryReader, EntryTooLarge
from microblog.imports.models import MAX_URL_LENGTH, Upload, upload_storage
from microblog.imports.parsers import FORMATS, EntryRejected, EntrySkipped, ParsedPost
from microblog.posts.language_detection import detect_language
from microblog.posts.models import Post
from microblog.posts.tokenizer import indexed
from microblog.taskqueue.errors import UserError
from microblog.taskqueue.interface import Progress
from microblog.taskqueue.worker import JobTask
from microblog.validators import replace_unstorable

RESULT_LIMIT = 100  # rejected entries in the task's result
# Rejected entries stored for a file, and so for a user (uploads.delete_uploads_with_rejected_entries):
# a file of brackets must not fill the disk.
STORED_LIMIT = 1_000_000

ADVISORY_LOCK = 0x696D70  # the advisory lock's class id for imports
NumberedPost = tuple[ParsedPost, int]  # a post and its number among equal posts in the file, from 1
BATCH = 4000  # entries read, and posts stored, at once


class Report:
    """Counts of the outcomes of all entries. It has no texts of posts; number, line and address locate an entry."""

    def __init__(self) -> None:
        self.read = 0  # entries
        self.posts = 0  # entries that are valid posts
        self.processed = 0  # entries that have been processed completely: their valid posts are in the database
        self._skipped: Counter[str] = Counter()
        self._rejected = 0
        self._first: list[dict[str, Any]] = []
        self._new: list[dict[str, Any]] = []
        self._without_media = 0

    def note(self, entry: Entry, outcome: ParsedPost | EntrySkipped | EntryRejected) -> None:
        """Count one entry."""
        self.read += 1
        if isinstance(outcome, ParsedPost):
            self.posts += 1
            self._without_media += outcome.has_media
        elif isinstance(outcome, EntrySkipped):
            self._skipped[outcome.kind] += 1
        else:
            self._rejected += 1
            where = {"number": entry.number, "line": entry.line, "address": _url(entry.value)}
            rejected = where | {"reason": str(outcome)}
            if self._rejected <= RESULT_LIMIT:
                self._first.append(rejected)
            if self._rejected <= STORED_LIMIT:
                self._new.append(rejected | {"place": self.read})

    def take_rejected(self) -> list[dict[str, Any]]:
        """Return the entries rejected since the last call, as columns of RejectedEntry; at most STORED_LIMIT in all."""
        rejected, self._new = self._new, []
        return rejected

    def to_dict(self, imported: int) -> dict[str, Any]:
        """Return the report as JSON; `imported` posts were stored, the other valid ones existed already."""
        return {
            "read": self.read,
            "imported": imported,
            "known": max(0, self.posts - imported),
            "without_media": self._without_media,
            "left_out": dict(self._skipped),
            "refused": self._rejected,
            "refusals": self._first,
        }


def _url(value: Any) -> str | None:
    """Return the URL of the original post, shortened and storable, or None if the file has none."""
    note = value.get("object") if isinstance(value, dict) else None
    url = note.get("url") if isinstance(note, dict) else None
    if not isinstance(url, str) or not url.startswith(("https://", "http://")):
        return None
    return replace_unstorable(url[:MAX_URL_LENGTH])


def store_posts(
    upload_id: str, user_id: int, batch: Sequence[NumberedPost], rejected: Sequence[dict[str, Any]] = ()
) -> None:
    """Store the new posts of a user's `batch`, and the entries `rejected` beside them, and commit.

    The transaction excludes the user's other imports. Raises LookupError if the upload or its user has been deleted.
    """
    # Detecting languages and extracting terms takes longer than the INSERT, so it is done before the lock is taken.
    derived = {body: _derived_columns(body) for body in {post.body for post in _new(batch, user_id)}}
    _lock(upload_id, user_id)
    rejected_entries.add(upload_id, rejected)
    if new := _new(batch, user_id):
        rows = [
            {"body": body, "timestamp": timestamp, "user_id": user_id, "imported": True}
            | (derived.get(body) or _derived_columns(body))
            for body, timestamp, _has_media in new
        ]
        db.session.execute(sa.insert(Post.__table__), rows)  # type: ignore[arg-type]
        _count(upload_id, user_id, len(new))
    db.session.commit()


def _new(batch: Sequence[NumberedPost], user_id: int) -> list[ParsedPost]:
    """Return the posts of `batch` that the user does not have."""
    existing = _count_existing([post for post, _number in batch], user_id)
    return [post for post, number in batch if not existing or number > existing[post.body, post.timestamp]]


def _derived_columns(body: str) -> dict[str, Any]:
    """Return the columns derived from a body, which would otherwise be computed during the INSERT (posts/models.py)."""
    return {"language": detect_language(body), "terms": indexed(body)}


def _lock(upload_id: str, user_id: int) -> None:
    """Exclude other imports of this user until the transaction ends.

    On SQLite the first write takes the database's write lock, so no other lock is needed.
    """
    _count(upload_id, user_id, 0)
    if db.engine.dialect.name == "postgresql":
        db.session.execute(sa.select(sa.func.pg_advisory_xact_lock(ADVISORY_LOCK, user_id)))


def _count(upload_id: str, user_id: int, new: int) -> None:
    """Add `new` to the upload's counter. Raises LookupError if the user has no such upload."""
    update = sa.update(Upload).where(Upload.id == upload_id, Upload.user_id == user_id)
    returning = update.values(imported=Upload.imported + new).returning(Upload.id)
    if db.session.scalar(returning.execution_options(synchronize_session=False)) is None:
        db.session.rollback()
        raise LookupError(f"{upload_id} has been deleted")


def _count_existing(posts: Sequence[ParsedPost], user_id: int) -> Counter[tuple[str, datetime]]:
    """Return the number of equal posts that the user has, for each post."""
    if not posts:
        return Counter()
    times = [post.timestamp for post in posts]
    in_range = sa.select(Post.id).where(Post.user_id == user_id, Post.timestamp.between(min(times), max(times)))
    if db.session.scalar(in_range.limit(1)) is None:  # an empty account, or an import in order of time
        return Counter()
    # The texts are compared too, since thousands of posts may share a timestamp. Both databases use an index for two
    # lists, but compare a list of pairs one by one.
    same = _one_of(Post.timestamp, times), _one_of(Post.body, [post.body for post in posts])
    counts = sa.select(Post.body, Post.timestamp, sa.func.count()).where(Post.user_id == user_id, *same)
    rows = db.session.execute(counts.group_by(Post.body, Post.timestamp))
    return Counter({(body, time): count for body, time, count in rows})


def _one_of(column: InstrumentedAttribute[Any], values: list[Any]) -> sa.ColumnElement[bool]:
    """Return the condition that `column` is one of `values`."""
    if db.engine.dialect.name == "postgresql":  # one array: parsing thousands of parameters takes longer than the query
        return column == sa.any_(sa.cast(values, ARRAY(column.type)))
    return column.in_(values)


def read_upload(task: JobTask, upload_id: str, user_id: int) -> dict[str, Any]:
    """Import the posts of an upload, with the task's progress in bytes. Return the report (Report.to_dict()).

    Posts that a previous attempt stored are not stored again. The rejected entries of the user's other imports are
    deleted. Raises UserError with a sentence that names line and column if the file is broken; the posts before that
    place stay imported.
    """
    storage, path = upload_storage(), f"{upload_id}.json"
    reports = [Report()]  # one for each pass over the file
    describe = partial(_posts_read, reports)
    with storage.open(path) as file, Progress(task, _size(file), describe=describe) as progress:
        uploads.delete_uploads_with_rejected_entries(user_id, kept_id=upload_id)
        db.session.rollback()  # progress is stored by the same connection
        try:
            _read(file, upload_id, user_id, count_in_order(), reports[0], progress)
        except OutOfOrder:  # once more from the beginning, to count equal posts wherever they are
            file.seek(0)
            reports.append(Report())
            with count_anywhere() as count:
                _read(file, upload_id, user_id, count, reports[1], progress, skip=reports[0].processed)
    return reports[-1].to_dict(_imported(upload_id))


def _size(file: IO[bytes]) -> int:
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    return size


def _read(
    file: IO[bytes], upload_id: str, user_id: int, count: Count, report: Report, progress: Progress, skip: int = 0
) -> None:
    """Read `file` to its end; its bytes are mapped to the progress that remains.

    The first `skip` entries are only counted, since a previous pass has stored them.
    """
    entries = EntryReader(file, FORMATS)
    start, total = progress.current, progress.total or 1
    for batch in _batches(entries, report, count):
        rejected = report.take_rejected()
        if (batch or rejected) and report.read > skip:
            store_posts(upload_id, user_id, batch, rejected)
        report.processed = report.read
        progress.advance(start + entries.bytes_read * (total - start) // total - progress.current)
    if not entries.found:
        raise UserError(_("This is neither an archive of posts from here nor a Mastodon outbox."))


def _batches(entries: EntryReader, report: Report, count: Count) -> Iterator[list[NumberedPost]]:
    """Yield the posts of each BATCH entries; a batch may be empty. Raises UserError where the file is broken."""
    reading = iter(entries)
    more = True
    while more:
        batch: list[NumberedPost] = []
        start, broken = report.read, None
        try:
            for entry in islice(reading, BATCH):
                outcome = _outcome(entry)
                report.note(entry, outcome)
                if isinstance(outcome, ParsedPost):
                    batch.append((outcome, count(outcome)))
        except BrokenJson as error:
            broken = error
        yield batch
        if broken is not None:
            raise UserError(_sentence(broken)) from broken
        more = report.read > start


def _outcome(entry: Entry) -> ParsedPost | EntrySkipped | EntryRejected:
    read: Callable[[Any], ParsedPost] = FORMATS[entry.key]
    try:
        return read(entry.value)
    except (EntrySkipped, EntryRejected) as reason:
        return reason


def _imported(upload_id: str) -> int:
    upload = db.session.get(Upload, upload_id, populate_existing=True)
    return upload.imported if upload else 0


def _sentence(broken: BrokenJson) -> str:
    place = {"line": format_decimal(broken.line), "column": format_decimal(broken.column)}
    if isinstance(broken, EntryTooLarge):
        text = _("What begins in line %(line)s, column %(column)s of the file is too long to be a post.", **place)
    else:
        text = _("The file is broken in line %(line)s, column %(column)s: from there on it is not JSON.", **place)
    imported = _("What came before that has been imported.")
    return f"{text} {imported}"


def _posts_read(reports: list[Report], *_progress: int | None) -> str:
    posts = max(report.posts for report in reports)  # the count must not fall during a second pass
    text: str = ngettext("%(count)s post read", "%(count)s posts read", posts, count=format_decimal(posts))
    return text
