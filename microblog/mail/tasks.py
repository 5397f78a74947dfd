"""Task that deletes old records of sent mails."""

from __future__ import annotations

from celery import shared_task
from flask import current_app

from microblog.database import delete_older
from microblog.extensions import db
from microblog.mail.models import SentMail


@shared_task(name="purge_sent_mails", ignore_result=True, interval_setting="SWEEP_INTERVAL")
def purge_sent_mails() -> None:
    """Delete the records of mails whose tasks have been purged: those older than TASK_LIFETIME."""
    lifetime: float = current_app.config["TASK_LIFETIME"]
    if lifetime:
        delete_older(db.session, SentMail.accepted_at, lifetime)
