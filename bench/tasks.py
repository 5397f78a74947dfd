"""The tasks that benchmarks launch."""

from __future__ import annotations

import time
from typing import Any

from celery import shared_task

from microblog.taskqueue import states
from microblog.taskqueue.celery import JobTask


@shared_task(name="noop", title="Nothing")
def noop(*args: Any) -> None:
    """Does nothing."""


@shared_task(name="tick", bind=True, title="Ticking")
def tick(self: JobTask, times: int, pause: float) -> None:
    """Tells its progress `times` times, `pause` seconds apart; each message is the time at which it was told."""
    for current in range(times):
        time.sleep(pause)
        meta = {"current": current, "total": times, "percent": 100 * current // times}
        self.update_state(state=states.PROGRESS, meta={**meta, "message": repr(time.time())})
