"""Which mails a job sent."""

from __future__ import annotations

import sqlalchemy as sa

from microblog.extensions import db
from microblog.jobs import traces
from microblog.jobs.job import Job
from microblog.jobs.traces import Facts
from microblog.mail.models import SentMail


@traces.tells("mails")
def mails_of(job: Job) -> list[Facts]:
    """The mails that a server accepted from any step of `job`."""
    sent = sa.select(SentMail).where(SentMail.id.in_([step.id for step in job.steps])).order_by(SentMail.accepted_at)
    return [
        {"step": mail.id, "message_id": mail.message_id, "accepted_at": mail.accepted_at}
        for mail in db.session.scalars(sent)
    ]
