"""The engine's own periodic tasks, where Celery looks for them."""

from __future__ import annotations

from microblog.taskqueue.purge import purge_tasks
from microblog.taskqueue.reconcile import reconcile

__all__ = ["purge_tasks", "reconcile"]
