"""The engine's own periodic task, where Celery looks for it."""

from __future__ import annotations

from microblog.taskqueue.reconcile import reconcile

__all__ = ["reconcile"]
