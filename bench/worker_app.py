"""`celery -A bench.worker_app`: Microblog's Celery app with the tasks of the benchmarks."""

from __future__ import annotations

import bench.tasks  # noqa: F401 - registers the benchmarks' tasks
from celery_app import app

__all__ = ["app"]
