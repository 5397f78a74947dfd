"""The worker's main process keeps the leases of all that its children run."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Iterator
from typing import Any

from celery import bootsteps
from celery.worker import state as worker_state
from celery.worker.request import Request

from microblog.taskqueue.claim import renew
from microblog.taskqueue.rows import DatabaseAway

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


class LeaseKeeper(bootsteps.StartStopStep):
    """Renews, three times a lease, the leases of the tasks that this worker is running, in one UPDATE.

    It lives in the main process, so that a task busy in C code keeps its lease and a worker that was killed or
    frozen loses it; and in a thread, since the main loop stands still while the broker is away.
    """

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        self._stopped = threading.Event()

    def start(self, worker: Any) -> None:
        """Begin to renew."""
        threading.Thread(target=self._run, args=(worker,), name="lease-keeper", daemon=True).start()

    def stop(self, worker: Any) -> None:
        """End; leases of tasks that still run are left to run out."""
        self._stopped.set()

    terminate = stop

    def _run(self, worker: Any) -> None:
        lease: float = worker.app.flask_app.config["TASK_LEASE"]
        while not self._stopped.wait(lease / 3):
            try:
                with _quiet:
                    running = [request.id for request in tuple(worker_state.active_requests)]
                    renew(worker.app.rows, running, worker.hostname, lease=lease)
            except DatabaseAway:
                logger.warning("the database is away; %d leases are not renewed", len(running), exc_info=True)
