"""Task that deletes old records of sent mails."""

from __future__ import annotations

from datetime import timedelta

import sqlalchemy as sa
from celery import shared_task
from flask import current_app

from microblog.clock import utcnow
from microblog.database import delete_in_batches
from microblog.extensions import db
from microblog.mail.models import SentMail

BATCH = 500  # rows deleted in one transaction


@shared_task(name="purge_sent_mails", ignore_result=True, interval_setting="SWEEP_INTERVAL")
def purge_sent_mails() -> None:
    """Delete the records of mails whose tasks have been purged: those older than TASK_LIFETIME."""
    lifetime: float = current_app.config["TASK_LIFETIME"]
    if lifetime:
        before = utcnow() - timedelta(seconds=lifetime)
        old = sa.select(SentMail.id).where(SentMail.accepted_at < before).limit(BATCH)
        delete_in_batches(db.session, sa.delete(SentMail).where(SentMail.id.in_(old)))
