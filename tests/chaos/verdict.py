"""Whether every promise was kept: what is looked at once all faults are healed."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from itertools import groupby, pairwise
from pathlib import Path
from typing import NamedTuple

import orjson
import sqlalchemy as sa
from flask import current_app

from microblog.exports.models import Archive
from microblog.extensions import db
from microblog.jobs.models import Job
from microblog.posts.models import Post
from microblog.storage import PARTS
from microblog.taskqueue import states
from microblog.taskqueue.models import Task
from tests.chaos.faults import Faults, Struck
from tests.chaos.people import People
from tests.chaos.town import Town
from tests.support.smtp import Delivery

HONEST_INSTANT = 1.0  # seconds within which a mail that was accepted is noted down
FREEZES = ("freeze_worker", "freeze_exporting_worker")
KILLS = ("kill_child", "kill_exporting_child", "kill_mailing_child", "kill_worker")


class Violation(NamedTuple):
    """A promise that was broken, and the job that it was broken for, if it was for one."""

    what: str
    job_id: str | None = None


class Verdict:
    """Looks at rows, results, mails and files; `violations` are all the promises found broken."""

    def __init__(self, town: Town, people: People, faults: Faults) -> None:
        self._town = town
        self._people = people
        self._faults = faults
        db.session.rollback()
        tasks = db.session.scalars(
            sa.select(Task).where(Task.user_id.is_not(None)).order_by(Task.root_id, Task.position)
        )
        self.jobs = [Job(list(steps)) for _root_id, steps in groupby(tasks, key=lambda task: task.root_id)]
        self._archives = {archive.id: archive for archive in db.session.scalars(sa.select(Archive))}
        self._mails: dict[str, list[Delivery]] = {}
        for delivery in list(town.smtp.deliveries):
            self._mails.setdefault(delivery.message["Message-ID"].strip("<>").partition("@")[0], []).append(delivery)
        self._equal: dict[tuple[int, str], bool] = {}
        self.repeated = sum(len(mails) > 1 for mails in self._mails.values())

    def counts(self) -> Counter[str]:
        """How many jobs ended in which state."""
        return Counter(job.state for job in self.jobs)

    def last_end(self) -> float:
        """When the last job ended, in seconds since the epoch; 0 if one has not."""
        ends = [job.finished_at for job in self.jobs]
        return max(end.timestamp() for end in ends if end) if all(ends) else 0.0

    def violations(self) -> Iterator[Violation]:
        """All promises that were broken."""
        for job in self.jobs:
            yield from (Violation(what, job.id) for what in self._broken_for(job))
        yield from self._lost_jobs()
        yield from self._jobs_at_once()
        yield from self._strange_mails()
        yield from self._strange_files()
        for sentence in [*self._faults.missed, *(broken for person in self._people.all for broken in person.broken)]:
            yield Violation(sentence)

    def _broken_for(self, job: Job) -> Iterator[str]:
        export, mail = job.steps
        if export.unfinished or mail.unfinished:
            yield "it has not ended"
        if {export.state, mail.state} - {states.SUCCESS} and mail.state == states.SUCCESS:
            yield f"its mail is {mail.state}, its export {export.state}"
        if job.state == states.FAILURE and job.current.crashes < current_app.config["TASK_MAX_CRASHES"] - 1:
            yield "it failed, though no worker died under it again and again"
        yield from self._broken_mail(mail)
        yield from self._broken_archive(export)
        for step in job.steps:
            yield from self._broken_result(step)

    def _broken_mail(self, mail: Task) -> Iterator[str]:
        accepted = self._mails.get(mail.id, [])
        if mail.state == states.SUCCESS and not accepted:
            yield "it succeeded, and no mail was accepted"
        if mail.state != states.SUCCESS and accepted:
            yield f"it is {mail.state}, and a mail was accepted"
        for delivery in accepted[:-1]:
            if not any(_overlaps(kill, delivery) for kill in self._faults.of(*KILLS, *FREEZES)):
                yield f"{len(accepted)} mails were accepted, and nothing died or froze between the first and its note"

    def _broken_archive(self, export: Task) -> Iterator[str]:
        archive = self._archives.pop(export.id, None)
        if (archive is not None) != (export.state == states.SUCCESS):
            yield f"its export is {export.state}, and {'an' if archive else 'no'} archive is kept"
        if archive is None or export.result is None:
            return
        facts = {"archive_id": archive.id, "posts": archive.posts, "size": archive.size, "sha256": archive.sha256}
        if facts != export.result:
            yield f"its result {export.result} is not its archive {facts}"
        path = self._storage / archive.path
        content = path.read_bytes() if path.exists() else b""
        if (len(content), hashlib.sha256(content).hexdigest()) != (archive.size, archive.sha256):
            yield f"the file of its archive has {len(content)} bytes, which are not those that were recorded"
        elif not self._equals_posts(content, archive):
            yield "its archive does not equal the posts"

    def _broken_result(self, step: Task) -> Iterator[str]:
        kept = self._town.redis.client.get(f"celery-task-meta-{step.id}")
        if kept is None:
            forgotten = max((struck.ended for struck in self._faults.of("empty_redis")), default=0.0)
            if step.finished_at and step.finished_at.timestamp() > forgotten:
                yield f"{step.name}: Redis has no result, and lost nothing since"
            return
        meta = orjson.loads(str(kept))
        if meta["status"] != step.state:
            yield f"{step.name}: its row says {step.state}, Redis {meta['status']}"
        elif step.state == states.SUCCESS and meta["result"] != step.result:
            yield f"{step.name}: its row says {step.result}, Redis {meta['result']}"

    def _lost_jobs(self) -> Iterator[Violation]:
        known = {job.id for job in self.jobs}
        for person in self._people.all:
            for job_id in set(person.accepted) - known:
                yield Violation(f"{person.username} was told that {job_id} had started, and it is not there")

    def _jobs_at_once(self) -> Iterator[Violation]:
        of_user = sorted(self.jobs, key=lambda job: (job.root.user_id, job.root.created_at))
        for earlier, later in pairwise(of_user):
            same = earlier.root.user_id == later.root.user_id
            # Times are taken just before the statement that writes them.
            if same and earlier.finished_at and (earlier.finished_at - later.root.created_at).total_seconds() > 1:
                yield Violation(f"it ran while {later.id}, of the same user, did", earlier.id)

    def _strange_mails(self) -> Iterator[Violation]:
        known = {step.id for job in self.jobs for step in job.steps}
        for task_id in set(self._mails) - known:
            yield Violation(f"a mail was accepted for {task_id}, which is no task")

    def _strange_files(self) -> Iterator[Violation]:
        """Called last: by then _broken_archive() has taken out what belongs to a job."""
        for archive in self._archives.values():
            yield Violation(f"an archive is kept for {archive.id}, which is no job")
        kept = set(db.session.scalars(sa.select(Archive.path)))
        for path in self._storage.rglob("*"):
            name = str(path.relative_to(self._storage))
            if path.is_file() and name not in kept:
                yield Violation(f"the file {name} belongs to no archive", path.name.partition(".")[0])

    def parts(self) -> list[Path]:
        """Temporary files that are there."""
        return list((self._storage / PARTS).glob("*"))

    @property
    def _storage(self) -> Path:
        return Path(current_app.config["EXPORT_STORAGE_URL"])

    def _equals_posts(self, content: bytes, archive: Archive) -> bool:
        """Whether the archive holds the posts of its user. Nobody posts meanwhile, so each content is read once."""
        if (archive.user_id, archive.sha256) not in self._equal:
            query = sa.select(Post.body, Post.timestamp).where(Post.user_id == archive.user_id)
            expected = [
                {"body": body, "timestamp": time.isoformat().replace("+00:00", "Z")}
                for body, time in db.session.execute(query.order_by(Post.timestamp, Post.id))
            ]
            self._equal[archive.user_id, archive.sha256] = orjson.loads(content) == {"posts": expected}
        return self._equal[archive.user_id, archive.sha256]


def _overlaps(kill: Struck, delivery: Delivery) -> bool:
    """Whether a process died or stood still between the beginning of a mail's session and the note about it."""
    began = kill.began if kill.fault.kind in FREEZES else kill.ended - HONEST_INSTANT
    return began <= delivery.ended + HONEST_INSTANT and kill.ended >= delivery.began
