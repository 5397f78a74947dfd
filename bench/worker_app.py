"""`celery -A bench.worker_app`: the application's own Celery app, with the benchmarks' tasks."""

from __future__ import annotations

from bench import tasks as tasks
from celery_app import app

__all__ = ["app"]
