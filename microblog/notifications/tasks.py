"""Task that deletes old notifications."""

from __future__ import annotations

from celery import shared_task
from flask import current_app

from microblog.database import delete_older
from microblog.extensions import db
from microblog.notifications.models import Notification


@shared_task(name="purge_notifications", ignore_result=True, interval_setting="SWEEP_INTERVAL")
def purge_notifications() -> None:
    """Delete notifications that are older than NOTIFICATION_LIFETIME."""
    delete_older(db.session, Notification.timestamp, current_app.config["NOTIFICATION_LIFETIME"])
