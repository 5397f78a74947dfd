"""Task that deletes the rows of jobs that ended longer than TASK_LIFETIME ago."""

from __future__ import annotations

from datetime import timedelta

import sqlalchemy as sa
from celery import shared_task
from flask import current_app
from sqlalchemy.orm import aliased

from microblog.clock import utcnow
from microblog.database import delete_in_batches
from microblog.extensions import db
from microblog.taskqueue.interface import celery_app, rows_needed_since
from microblog.taskqueue.models import Task

BATCH = 500  # steps examined in one transaction


@shared_task(name="purge_tasks", ignore_result=True, interval_setting="SWEEP_INTERVAL")
def purge_tasks() -> None:
    """Delete all steps of jobs that ended more than TASK_LIFETIME ago, unless they are still needed."""
    lifetime: float = current_app.config["TASK_LIFETIME"]
    if not lifetime:
        return  # rows are stored permanently
    needed = [since for _receiver, since in rows_needed_since.send(celery_app())]
    before = min([utcnow() - timedelta(seconds=lifetime), *needed])
    step, other = aliased(Task), aliased(Task)
    recent = sa.exists().where(
        other.root_id == step.root_id, sa.or_(other.finished_at.is_(None), other.finished_at >= before)
    )
    ended = sa.select(step.root_id).where(step.finished_at < before, ~recent).order_by(step.finished_at).limit(BATCH)
    delete_in_batches(db.session, sa.delete(Task).where(Task.root_id.in_(ended)))
