"""What the engine announces; `notifications` listens."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from blinker import Signal


@dataclass(frozen=True)
class TaskChange:
    """What an open page needs to know of a task that changed. `progress` as in the API, None if untouched."""

    id: str
    root_id: str
    position: int
    user_id: int | None
    state: str
    progress: dict[str, Any] | None
    at: datetime


#: Sent after a state reached Redis and, where it goes there, the row. Receivers get ``sender, change``; they run
#: in the process that caused the change (a worker's child, a web process) and must neither raise nor wait.
task_changed = Signal()
