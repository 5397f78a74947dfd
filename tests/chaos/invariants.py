"""The checks of every promise after the repair of all faults."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from itertools import groupby, pairwise
from pathlib import Path
from typing import NamedTuple

import orjson
import sqlalchemy as sa
from flask import current_app
from redbeat.schedulers import RedBeatSchedulerEntry

from microblog.clock import utcnow
from microblog.exports.models import Archive
from microblog.extensions import db
from microblog.jobs.models import Job
from microblog.posts.models import Post
from microblog.taskqueue import reconcile, states
from microblog.taskqueue.models import Task
from tests.chaos.deployment import Deployment
from tests.chaos.faults import Faults, Occurrence
from tests.chaos.load import Load
from tests.chaos.queue_watch import Republication
from tests.support.smtp import Delivery

RECORDING_TIME = 1.0  # seconds within which an accepted mail is recorded
FREEZES = ("freeze_worker", "freeze_exporting_worker")
# The message that waits may be a copy of one that was returned, or its sender got an error.
RETURNS = ("old_worker", "restart_redis", "empty_redis", "redis_refuses")
KILLS = ("kill_child", "kill_exporting_child", "kill_mailing_child", "kill_worker")


class Violation(NamedTuple):
    """A broken promise, and the id of the job, if it concerns one."""

    sentence: str
    job_id: str | None = None


class Invariants:
    """The state of rows, results, mails and files after a run; violations() yields the broken promises."""

    def __init__(self, system: Deployment, load: Load, faults: Faults) -> None:
        self._system = system
        self._load = load
        self._faults = faults
        db.session.rollback()
        tasks = db.session.scalars(
            sa.select(Task).where(Task.user_id.is_not(None)).order_by(Task.root_id, Task.position)
        )
        self.jobs = [Job(list(steps)) for _root_id, steps in groupby(tasks, key=lambda task: task.root_id)]
        self._archives = {archive.id: archive for archive in db.session.scalars(sa.select(Archive))}
        self._mails: dict[str, list[Delivery]] = {}
        for delivery in list(system.smtp.deliveries):
            self._mails.setdefault(delivery.message["Message-ID"].strip("<>").partition("@")[0], []).append(delivery)
        self._equal: dict[tuple[int, str], bool] = {}
        self.repeated = sum(len(mails) > 1 for mails in self._mails.values())

    def counts(self) -> Counter[str]:
        """Return the number of jobs by state."""
        return Counter(job.state for job in self.jobs)

    def last_end(self, launched_before: float) -> float:
        """Return the end of the last job launched before a time, in seconds since 1970; now if one has not ended."""
        jobs = [job for job in self.jobs if job.root.created_at.timestamp() < launched_before]
        return max((job.finished_at or utcnow()).timestamp() for job in jobs)

    def violations(self) -> Iterator[Violation]:
        """Yield all broken promises."""
        for job in self.jobs:
            yield from (Violation(sentence, job.id) for sentence in self._violations_of(job))
        yield from self._lost_jobs()
        yield from self._concurrent_jobs()
        yield from self._unexpected_mails()
        yield from self._unexpected_files()
        yield from self._republished_jobs()
        yield from self._late_periodic_tasks()
        for sentence in [*self._faults.not_injected, *(each for user in self._load.users for each in user.unexpected)]:
            yield Violation(sentence)

    def _violations_of(self, job: Job) -> Iterator[str]:
        export, mail = job.steps
        if export.unfinished or mail.unfinished:
            yield "it has not ended"
        if {export.state, mail.state} - {states.SUCCESS} and mail.state == states.SUCCESS:
            yield f"its mail is {mail.state}, its export {export.state}"
        if job.state == states.FAILURE and job.current.crashes < current_app.config["TASK_MAX_CRASHES"] - 1:
            yield "it failed without repeated crashes of its worker"
        yield from self._mail_violations(mail)
        yield from self._archive_violations(export)
        for step in job.steps:
            yield from self._result_violations(step)
            if (step.worker or "").startswith(f"without-{step.name}-"):
                yield f"{step.name}: {step.worker} ran it, and does not have it"

    def _mail_violations(self, mail: Task) -> Iterator[str]:
        accepted = self._mails.get(mail.id, [])
        if mail.state == states.SUCCESS and not accepted:
            yield "it succeeded, but no mail was accepted"
        cancelled = mail.state == states.REVOKED and mail.cancel_requested_at is not None
        if accepted and mail.state != states.SUCCESS and not cancelled:
            yield f"it is {mail.state}, but a mail was accepted"
        unrecorded = accepted[:-1] if mail.state == states.SUCCESS else accepted
        for delivery in unrecorded:
            if not any(_overlaps(kill, delivery) for kill in self._faults.of(*KILLS, *FREEZES)):
                yield (
                    f"it is {mail.state}, {len(accepted)} mails were accepted, and one was not recorded, but no "
                    "process died or froze then"
                )

    def _archive_violations(self, export: Task) -> Iterator[str]:
        archive = self._archives.pop(export.id, None)
        if (archive is not None) != (export.state == states.SUCCESS):
            yield f"its export is {export.state}, and {'an' if archive else 'no'} archive exists"
        if archive is None or export.result is None:
            return
        columns = {"archive_id": archive.id, "posts": archive.posts, "size": archive.size, "sha256": archive.sha256}
        if columns != export.result:
            yield f"its result {export.result} differs from its archive {columns}"
        path = self._storage / archive.path
        content = path.read_bytes() if path.exists() else b""
        if (len(content), hashlib.sha256(content).hexdigest()) != (archive.size, archive.sha256):
            yield f"the file of its archive has {len(content)} bytes, which differ from the recorded size or hash"
        elif not self._equals_posts(content, archive):
            yield "its archive does not equal the posts"

    def _result_violations(self, step: Task) -> Iterator[str]:
        client = self._system.redis.client
        stored = client.get(client.key(f"celery-task-meta-{step.id}"))
        if stored is None:
            emptied = max((fault.ended for fault in self._faults.of("empty_redis")), default=0.0)
            if step.finished_at and step.finished_at.timestamp() > emptied:
                yield f"{step.name}: Redis has no result, but was not emptied since"
            return
        meta = orjson.loads(str(stored))
        if meta["status"] != step.state:
            yield f"{step.name}: its row has {step.state}, Redis has {meta['status']}"
        elif step.state == states.SUCCESS and meta["result"] != step.result:
            yield f"{step.name}: its row has {step.result}, Redis has {meta['result']}"

    def _lost_jobs(self) -> Iterator[Violation]:
        existing = {job.id for job in self.jobs}
        for user in self._load.users:
            for job_id in set(user.accepted) - existing:
                yield Violation(f"{user.username}: the API accepted job {job_id}, which does not exist")

    def _concurrent_jobs(self) -> Iterator[Violation]:
        of_user = sorted(self.jobs, key=lambda job: (job.root.user_id, job.root.created_at))
        for earlier, later in pairwise(of_user):
            same = earlier.root.user_id == later.root.user_id
            # Times are taken just before the statement that writes them.
            if same and earlier.finished_at and (earlier.finished_at - later.root.created_at).total_seconds() > 1:
                yield Violation(f"it ran at the same time as {later.id} of the same user", earlier.id)

    def _unexpected_mails(self) -> Iterator[Violation]:
        existing = {step.id for job in self.jobs for step in job.steps}
        for task_id in set(self._mails) - existing:
            yield Violation(f"a mail was accepted for {task_id}, which is not a task")

    def _unexpected_files(self) -> Iterator[Violation]:
        """Yield archives without a job and files without an archive.

        Call it last, since _archive_violations() removes the archives of jobs from the dictionary.
        """
        for archive in self._archives.values():
            yield Violation(f"an archive exists for {archive.id}, which is not a job")
        recorded = set(db.session.scalars(sa.select(Archive.path)))
        for path in self._storage.rglob("*.json"):
            name = str(path.relative_to(self._storage))
            if name not in recorded:
                yield Violation(f"the file {name} belongs to no archive", path.name.partition(".")[0])

    def _republished_jobs(self) -> Iterator[Violation]:
        for again in self._system.queue_watch.republications:
            if not any(_returned(fault, again) for fault in self._faults.of(*RETURNS)):
                yield Violation("it was published again while its message was in its queue", again.task_id)

    def _late_periodic_tasks(self) -> Iterator[Violation]:
        """Yield the periodic tasks that were not sent within their interval and the time that a new beat needs."""
        conf, client = current_app.extensions["celery"].conf, self._system.redis.client
        for name, entry in conf.beat_schedule.items():
            meta = client.hget(client.key(f"redbeat:{name}"), "meta")
            sent_at = RedBeatSchedulerEntry.decode_meta(meta)["last_run_at"]
            longest = timedelta(seconds=entry["schedule"] + conf.redbeat_lock_timeout)
            if sent_at is None or not timedelta() <= utcnow() - sent_at <= longest:
                yield Violation(f"beat last sent {name} at {sent_at}")

    @property
    def _storage(self) -> Path:
        return Path(current_app.config["EXPORT_STORAGE_URL"])

    def _equals_posts(self, content: bytes, archive: Archive) -> bool:
        """Return whether the archive has the posts of its user. These do not change, so each content is parsed once."""
        if (archive.user_id, archive.sha256) not in self._equal:
            query = sa.select(Post.body, Post.timestamp).where(Post.user_id == archive.user_id)
            expected = [
                {"body": body, "timestamp": time.isoformat().replace("+00:00", "Z")}
                for body, time in db.session.execute(query.order_by(Post.timestamp, Post.id))
            ]
            self._equal[archive.user_id, archive.sha256] = orjson.loads(content) == {"posts": expected}
        return self._equal[archive.user_id, archive.sha256]


def _returned(fault: Occurrence, again: Republication) -> bool:
    """Return whether a fault may have made the republication necessary."""
    return fault.began <= again.at and fault.ended + reconcile.GRACE.total_seconds() >= again.waiting_since


def _overlaps(kill: Occurrence, delivery: Delivery) -> bool:
    """Return whether a process died or froze between the begin of a mail's session and the record of the mail."""
    began = kill.began if kill.fault.kind in FREEZES else kill.ended - RECORDING_TIME
    return began <= delivery.ended + RECORDING_TIME and kill.ended >= delivery.began
