"""Which archive a job made."""

from __future__ import annotations

from microblog.exports.models import Archive
from microblog.extensions import db
from microblog.jobs import traces
from microblog.jobs.job import Job
from microblog.jobs.traces import Facts


@traces.tells("archives")
def archives_of(job: Job) -> list[Facts]:
    """The archive of `job`, unless it has had its time; `path` is relative to the storage, `size` in bytes."""
    archive = db.session.get(Archive, job.id)
    if archive is None:
        return []
    known = ("path", "size", "sha256", "posts", "created_at", "expires_at")
    return [{name: getattr(archive, name) for name in known}]
