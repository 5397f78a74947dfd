"""The tasks that benchmarks launch."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from celery import shared_task

from bench.task_log import TaskLog
from microblog.taskqueue import states
from microblog.taskqueue.worker import JobTask


@shared_task(name="noop", title="Nothing")
def noop(*args: Any) -> None:
    """Do nothing."""


@shared_task(name="work", bind=True, title="Working")
def work(self: JobTask, log: str, seconds: float) -> None:
    """Work for `seconds`."""
    TaskLog(Path(log)).work(self.task_id, seconds)


@shared_task(name="tick", bind=True, title="Ticking")
def tick(self: JobTask, times: int, pause: float) -> None:
    """Report progress `times` times, `pause` seconds apart; the message is the current time in seconds since 1970."""
    for current in range(times):
        time.sleep(pause)
        meta = {"current": current, "total": times, "percent": 100 * current // times}
        self.update_state(state=states.PROGRESS, meta={**meta, "message": repr(time.time())})
