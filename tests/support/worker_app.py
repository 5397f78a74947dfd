"""`celery -A tests.support.worker_app`: the application's own Celery app, with the tests' tasks."""

from __future__ import annotations

from celery_app import app
from tests.support import tasks as tasks

__all__ = ["app"]
