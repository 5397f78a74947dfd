"""The engine's periodic task."""

from __future__ import annotations

from microblog.taskqueue.reconcile import reconcile

__all__ = ["reconcile"]
