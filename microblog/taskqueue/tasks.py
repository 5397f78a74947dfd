"""Imports the engine's periodic task, so that Celery's autodiscovery of ``tasks`` modules finds it."""

from __future__ import annotations

from microblog.taskqueue.reconcile import reconcile

__all__ = ["reconcile"]
