"""Progress: counted in the task, seen by its user, and the moment at which a cancellation is heard."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

from microblog.taskqueue import states

if TYPE_CHECKING:
    from microblog.taskqueue.celery import JobTask

Item = TypeVar("Item")

REDIS_INTERVAL = 0.2  # seconds between two updates that open pages see
ROW_INTERVAL = 1.0  # seconds between two updates of the row, each of which also looks for a cancellation


class Progress:
    """Counts what a task has done and stores it as Celery's state PROGRESS, as often as is useful.

    The first and the last count always reach Redis and the row; in between at most five a second reach Redis and
    one a second the row. `total` is None where it is not known; `describe` turns ``(current, total)`` into a line
    for the user. ::

        with Progress(self, total=len(paths)) as progress:
            for path in progress.track(paths):
                ...

    Any update may raise errors.Cancelled or errors.ClaimLost: clean up and let it pass.
    """

    def __init__(
        self,
        task: JobTask,
        total: int | None = None,
        *,
        describe: Callable[[int, int | None], str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.current = 0
        self.total = total
        self._task = task
        self._describe = describe
        self._clock = clock
        self._stored_at = self._persisted_at = 0.0

    def __enter__(self) -> Progress:
        self._store(persist=True)
        return self

    def __exit__(self, error: object, *details: object) -> None:
        if error is None:
            self._store(persist=True)

    def advance(self, by: int = 1) -> None:
        """Count `by` more as done."""
        self.current += by
        now = self._clock()
        if now - self._persisted_at >= ROW_INTERVAL:
            self._store(persist=True)
        elif now - self._stored_at >= REDIS_INTERVAL:
            self._store(persist=False)

    def track(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield each of `items`, counting it once the loop comes back for the next."""
        for item in items:
            yield item
            self.advance()

    @property
    def percent(self) -> int:
        """0 to 100; 0 while the total is unknown or nothing."""
        return min(100, self.current * 100 // self.total) if self.total else 0

    def _store(self, *, persist: bool) -> None:
        self._stored_at = self._clock()
        if persist:
            self._persisted_at = self._stored_at
        meta = {
            "current": self.current,
            "total": self.total,
            "percent": self.percent,
            "message": self._describe(self.current, self.total) if self._describe else "",
        }
        self._task.update_state(state=states.PROGRESS, meta=meta, persist=persist)
