"""The ``flask tasks`` commands: the command group is in common.py, its commands are in the other modules."""

from __future__ import annotations

from microblog.monitoring.cli import jobs, queues, stats, watch, workers  # noqa: F401 - register commands
from microblog.monitoring.cli.common import tasks

__all__ = ["tasks"]
