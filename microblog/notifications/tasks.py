"""Task that deletes old notifications."""

from __future__ import annotations

from datetime import timedelta

import sqlalchemy as sa
from celery import shared_task
from flask import current_app

from microblog.clock import utcnow
from microblog.database import delete_in_batches
from microblog.extensions import db
from microblog.notifications.models import Notification

BATCH = 500  # rows deleted in one transaction


@shared_task(name="purge_notifications", ignore_result=True, interval_setting="SWEEP_INTERVAL")
def purge_notifications() -> None:
    """Delete notifications that are older than NOTIFICATION_LIFETIME."""
    before = utcnow() - timedelta(seconds=current_app.config["NOTIFICATION_LIFETIME"])
    old = sa.select(Notification.id).where(Notification.timestamp < before).limit(BATCH)
    delete_in_batches(db.session, sa.delete(Notification).where(Notification.id.in_(old)))
