"""The application's Celery app with all tasks of the tests, for `celery -A tests.support.worker_app`."""

from __future__ import annotations

from celery_app import app
from tests.browser import tasks as browser_tasks
from tests.support import tasks as tasks

__all__ = ["app", "browser_tasks"]
