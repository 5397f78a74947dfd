"""`celery -A bench.worker_app`: Microblog's Celery app with the tasks of the benchmarks."""

from __future__ import annotations

from bench import tasks as tasks
from celery_app import app

__all__ = ["app"]
