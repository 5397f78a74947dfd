"""Reads a whole upload into its user's posts, a batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import IO, Any

from flask_babel import format_decimal, ngettext
from flask_babel import gettext as _

from microblog.extensions import db
from microblog.imports import sweep
from microblog.imports.formats import FORMATS, Draft, LeftOut, Refused
from microblog.imports.keep import Numbered, keep
from microblog.imports.models import Upload
from microblog.imports.occurrences import Count, OutOfOrder, count_anywhere, count_in_order
from microblog.imports.reader import BrokenJson, Entry, EntryReader, EntryTooLarge
from microblog.imports.report import Report
from microblog.imports.storage import current_storage
from microblog.taskqueue.celery import JobTask
from microblog.taskqueue.errors import JobError
from microblog.taskqueue.progress import Progress

BATCH = 4000  # entries read, and posts kept, at once


def read_upload(task: JobTask, upload_id: str, user_id: int) -> dict[str, Any]:
    """Keep the posts of an upload, with the task's progress in bytes; returns the report (report.Report.to_dict()).

    What another attempt has kept is not kept again; what the user's other imports refused is no longer listed. Raises
    JobError, with a sentence that names the place, where the file is broken; what came before that is kept.
    """
    storage, path = current_storage(), f"{upload_id}.json"
    reports = [Report()]  # one of each reading
    describe = partial(_posts_read, reports)
    with storage.open(path) as file, Progress(task, storage.size(path), describe=describe) as progress:
        sweep.delete_refused(user_id, but=upload_id)
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
            keep(upload_id, user_id, batch, refusals)
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
