"""Thread that repeats a query, so that a slow answer blocks nothing else."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from flask import Flask

SHORTEST_PAUSE = 0.2  # seconds between two questions, however often it is poked


class Poller:
    """Calls `ask` in an app context every `interval` seconds, and at once when poked.

    After each call `tell` gets None, or a sentence if the call raised one of the errors in `away`. Other errors end
    the thread.
    """

    def __init__(
        self,
        app: Flask,
        ask: Callable[[], None],
        *,
        interval: float,
        away: tuple[type[Exception], ...],
        tell: Callable[[str | None], None],
    ) -> None:
        self._app = app
        self._ask = ask
        self._interval = interval
        self._away = away
        self._tell = tell
        self._poked = threading.Event()
        self._stopped = False
        self._asked_at: float | None = None

    def start(self) -> None:
        """Begin to ask."""
        threading.Thread(target=self._run, name=f"poll-{self._ask.__name__}", daemon=True).start()

    def poke(self) -> None:
        """Ask again soon."""
        self._poked.set()

    def stop(self) -> None:
        """Ask no more; does not wait for an answer that is on its way."""
        self._stopped = True
        self._poked.set()

    def waiting_for(self) -> float:
        """For how many seconds the question that is open now has been."""
        asked_at = self._asked_at
        return time.monotonic() - asked_at if asked_at is not None else 0.0

    def _run(self) -> None:
        while not self._stopped:
            self._poked.clear()
            self._asked_at = time.monotonic()
            try:
                with self._app.app_context():
                    self._ask()
            except self._away as error:
                self._tell(_sentence(error))
            else:
                self._tell(None)
            self._asked_at = None
            time.sleep(SHORTEST_PAUSE)
            self._poked.wait(self._interval - SHORTEST_PAUSE)


def _sentence(error: Exception) -> str:
    """Return the driver's message without the statement that SQLAlchemy adds."""
    return str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
