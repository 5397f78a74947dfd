"""The engine's interface for tasks and other packages: the claim of the current run, signals and progress."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from blinker import Signal
from flask import current_app

from microblog.clock import elapsed
from microblog.taskqueue import states
from microblog.validators import replace_unstorable

if TYPE_CHECKING:
    from celery.app.task import Context

    from microblog.taskqueue.worker import CeleryApp, JobTask

Item = TypeVar("Item")

#: Sent after a state was stored in Redis and, where applicable, in the row. Receivers get ``sender, change``.
task_changed = Signal()

#: Sent when a message was dropped because its task must not run. Receivers get ``sender, refusal``, a ClaimRefused.
claim_refused = Signal()

#: Sent when reconcile has published a message that was missing. Receivers get ``sender, task_id``.
message_republished = Signal()

#: Sent when a malformed message was set aside. Receivers get ``sender, queue``.
message_set_aside = Signal()

#: Sent before rows are purged. Receivers get ``sender`` and return a time: rows that ended since then are not purged.
rows_needed_since = Signal()

REDIS_INTERVAL = 0.2  # seconds between two updates that open pages see
ROW_INTERVAL = 1.0  # seconds between two updates of the row, each of which also checks for a cancellation


def celery_app() -> CeleryApp:
    """Return the Celery app of the current Flask app."""
    app: CeleryApp = current_app.extensions["celery"]
    return app


@dataclass
class Claim:
    """A process's right to run one task.

    `attempt` is the fencing token: the row accepts writes of the holder only while its `attempts` is this number. Until
    `valid_until` (a time of clock.elapsed()) no other process can have taken the task over, so the holder need not
    check. `next_steps` is the rest of the job's chain as Celery stores it, the last step first; it is set once the task
    has returned or requested a retry. `retry` is the signature of that retry, `retry_pause` the seconds until it is
    due. `ended` is true once the state with which the run ends is to be stored in the row: the lease is given up.
    """

    task_id: str
    root_id: str
    position: int
    user_id: int | None
    attempt: int
    started_at: datetime  # of the first attempt
    claimed_at: datetime
    valid_until: float
    next_steps: list[dict[str, Any]] = field(default_factory=list)
    ended: bool = False
    retry: dict[str, Any] | None = None
    retry_pause: float = 0.0
    claimed: float = field(default_factory=elapsed)

    @property
    def lease_valid(self) -> bool:
        """Return whether the lease is certainly live."""
        return elapsed() < self.valid_until

    @property
    def now(self) -> datetime:
        """The time of the database's clock, without a query."""
        return self.claimed_at + timedelta(seconds=elapsed() - self.claimed)


def claim_of(request: Context | None) -> Claim | None:
    """Return the claim that JobTask stored on Celery's request.

    None outside a run, such as in a worker's main process, and for a task without a row.
    """
    return getattr(request, "claim", None)


@dataclass(frozen=True)
class TaskChange:
    """A change of a task, with the data that open pages need.

    `progress` is as in the API, None if unchanged; `name` is Celery's name, None unless the task has ended.
    """

    id: str
    root_id: str
    position: int
    user_id: int | None
    state: str
    progress: dict[str, Any] | None
    at: datetime
    name: str | None = None


class Progress:
    """Counts what a task has done and stores it as Celery's state PROGRESS, as often as is useful.

    The first and the last count always reach Redis and the row; in between at most five a second reach Redis and
    one a second the row. `total` is None if it is unknown; `describe` turns ``(current, total)`` into a line
    for the user. ::

        with Progress(self, total=len(paths)) as progress:
            for path in progress.track(paths):
                ...

    Any update may raise Cancelled or ClaimLost: clean up and let it propagate.
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
        """Yield each of `items`, and count it when the loop requests the next one."""
        for item in items:
            yield item
            self.advance()

    @property
    def percent(self) -> int:
        """0 to 100; 0 if the total is unknown or zero."""
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


def as_progress(state: str, meta: Any) -> dict[str, Any]:
    """Return the progress that a row stores for PROGRESS with `meta`, or for a state that a task has named itself.

    As in Celery's documentation, `meta` may be anything; from a dict are taken ``current``, ``total``, ``percent`` and
    ``message``. The name of another state is the message, if `meta` has none.
    """
    given = meta if isinstance(meta, dict) else {}
    current, total = _count(given.get("current")) or 0, _count(given.get("total"))
    percent = _count(given.get("percent"))
    if percent is None:
        percent = current * 100 // total if total else 0
    message = replace_unstorable(str(given.get("message") or ("" if state == states.PROGRESS else state)))
    return {"current": current, "total": total, "percent": min(percent, 100), "message": message}


def _count(value: Any) -> int | None:
    """Return `value` if it is a number that a row can store, else None."""
    return int(value) if isinstance(value, int | float) and 0 <= value < 2**63 else None


def describe_ids(task_ids: Sequence[str]) -> str:
    """Return the ids of tasks for a line of the log: the first, and how many others there are."""
    others = f" and {len(task_ids) - 1} others" if len(task_ids) > 1 else ""
    return f"{task_ids[0]}{others}"
