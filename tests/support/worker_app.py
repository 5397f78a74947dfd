"""The application's Celery app with the tests' tasks, for `celery -A tests.support.worker_app`."""

from __future__ import annotations

from celery_app import app
from tests.support import tasks as tasks

__all__ = ["app"]
