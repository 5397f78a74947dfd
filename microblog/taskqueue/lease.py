"""The worker's main process keeps the leases of all that its children run."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

from celery import bootsteps
from celery.worker import state as worker_state
from celery.worker.request import Request

from microblog.taskqueue.claim import renew

logger = logging.getLogger(__name__)

# Held while a statement runs, and by os.fork(): a child must not inherit a database library's lock as taken.
_quiet = threading.Lock()
os.register_at_fork(before=_quiet.acquire, after_in_parent=_quiet.release, after_in_child=_quiet.release)


@contextlib.contextmanager
def let_go(request: Request) -> Iterator[None]:
    """A block in which, and after which, the lease of `request` is not renewed; for whoever gives it back there."""
    with _quiet:
        worker_state.active_requests.discard(request)
        yield


def renew_all(worker: Any, known: set[Request]) -> set[Request]:
    """Renew the leases of what `worker` has been running since `known` was; returns all that it is running now.

    What it has only just been given may not have been claimed yet: its row may still bear this worker's name from a
    claim whose process died, and the lease of that must not come to life again.
    """
    with _quiet:
        running = set(worker_state.active_requests)
        ids = [request.id for request in running & known]
        renew(worker.app.rows, ids, worker.hostname, lease=worker.app.flask_app.config["TASK_LEASE"])
    return running


class LeaseKeeper(bootsteps.StartStopStep):
    """Renews, four times a lease, the leases of the tasks that this worker is running, in one UPDATE.

    It lives in the main process, so that a task busy in C code keeps its lease and a worker that was killed or
    frozen loses it; and in a thread, since the main loop stands still while the broker is away.
    """

    def start(self, worker: Any) -> None:
        """Begin to renew; the thread ends with the process, since a worker that was told to stop still runs tasks."""
        threading.Thread(target=self._run, args=(worker,), name="lease-keeper", daemon=True).start()

    def _run(self, worker: Any) -> None:
        known: set[Request] = set()
        while True:
            time.sleep(worker.app.flask_app.config["TASK_LEASE"] / 4)
            try:
                known = renew_all(worker, known)
            except Exception:  # whatever it is, such as a database that is away: the next turn may do better
                logger.warning("leases are not renewed", exc_info=True)
