"""``flask tasks``: the group is in group.py, its commands in the modules beside it, one for each kind of work."""

from __future__ import annotations

from microblog.monitoring.cli import control, see, statistics, steer, watch, worker_control, workers
from microblog.monitoring.cli.group import tasks

__all__ = ["control", "see", "statistics", "steer", "tasks", "watch", "worker_control", "workers"]
