"""A thread that repeats a query, so that a slow response blocks nothing else."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from flask import Flask

SHORTEST_PAUSE = 0.2  # minimum seconds between two queries, even if it is poked more often


class Poller:
    """Calls `query` in an app context every `interval` seconds, and immediately when poked.

    After each call, `tell` is called with None, or with a message if the call raised one of the errors in `away`.
    Other errors end the thread.
    """

    def __init__(
        self,
        app: Flask,
        query: Callable[[], None],
        *,
        interval: float,
        away: tuple[type[Exception], ...],
        tell: Callable[[str | None], None],
    ) -> None:
        self._app = app
        self._query = query
        self._interval = interval
        self._away = away
        self._tell = tell
        self._poked = threading.Event()
        self._stopped = False
        self._started_at: float | None = None

    def start(self) -> None:
        """Start the thread."""
        threading.Thread(target=self._run, name=f"poll-{self._query.__name__}", daemon=True).start()

    def poke(self) -> None:
        """Run the query soon."""
        self._poked.set()

    def stop(self) -> None:
        """Stop the thread. Does not wait for a query in progress."""
        self._stopped = True
        self._poked.set()

    def waiting_for(self) -> float:
        """Return the age of the query in progress in seconds, or 0 if there is none."""
        started_at = self._started_at
        return time.monotonic() - started_at if started_at is not None else 0.0

    def _run(self) -> None:
        while not self._stopped:
            self._poked.clear()
            self._started_at = time.monotonic()
            try:
                with self._app.app_context():
                    self._query()
            except self._away as error:
                self._tell(_sentence(error))
            else:
                self._tell(None)
            self._started_at = None
            time.sleep(SHORTEST_PAUSE)
            self._poked.wait(self._interval - SHORTEST_PAUSE)


def _sentence(error: Exception) -> str:
    """Return the driver's message without the statement that SQLAlchemy adds."""
    return str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
