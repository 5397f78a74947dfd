"""Time limits that operators change while a worker runs."""

from __future__ import annotations

from typing import Any


class ChangeableLimits:
    """A part of the worker's request class, which makes the remote control command ``time_limit`` count."""

    _task: Any
    _sent_limits: tuple[float | None, float | None] = (None, None)

    @property
    def time_limits(self) -> tuple[float | None, float | None]:
        """The hard limit and the soft one, in seconds: as an operator changed them, else as they were sent.

        Each message carries the limits that its task had where it was sent, and for Celery these have precedence: the
        remote control command `time_limit` would change nothing.
        """
        changed = vars(self._task)  # of the instance, that is; those that were written down are the class's
        if "time_limit" in changed:
            return changed["time_limit"], changed["soft_time_limit"]
        return self._sent_limits

    @time_limits.setter
    def time_limits(self, sent: tuple[float | None, float | None]) -> None:
        self._sent_limits = sent
