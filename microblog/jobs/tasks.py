"""The room's periodic task, where Celery looks for it."""

from __future__ import annotations

from microblog.jobs.purge import purge_tasks

__all__ = ["purge_tasks"]
