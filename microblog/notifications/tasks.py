"""Periodic tasks: notifications that were missed, and those that are old."""

from __future__ import annotations

from celery import shared_task
from flask import current_app

from microblog.database import delete_older
from microblog.extensions import db
from microblog.notifications import push
from microblog.notifications.models import Notification


@shared_task(name="notify_missed_ends", ignore_result=True, interval_setting="SWEEP_INTERVAL")
def notify_missed_ends() -> None:
    """Notify users of the ends of jobs whose process was killed before it did so."""
    push.notify_missed_ends(current_app)


@shared_task(name="purge_notifications", ignore_result=True, interval_setting="SWEEP_INTERVAL")
def purge_notifications() -> None:
    """Delete notifications that are older than NOTIFICATION_LIFETIME."""
    delete_older(db.session, Notification.timestamp, current_app.config["NOTIFICATION_LIFETIME"])
