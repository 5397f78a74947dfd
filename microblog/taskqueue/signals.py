"""What the engine announces and asks; `notifications` and `monitoring` listen.

Receivers run in the process where it happens (a worker's child, a web process) and must neither raise nor wait.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from blinker import Signal


@dataclass(frozen=True)
class TaskChange:
    """What an open page needs to know of a task that changed.

    `progress` as in the API, None if untouched; `name` is Celery's, None of a task that has not ended.
    """

    id: str
    root_id: str
    position: int
    user_id: int | None
    state: str
    progress: dict[str, Any] | None
    at: datetime
    name: str | None = None


#: Sent after a state reached Redis and, where it goes there, the row. Receivers get ``sender, change``.
task_changed = Signal()

#: Sent when a message was dropped since its task must not run. Receivers get ``sender, refusal``, an
#: errors.ClaimRefused.
claim_refused = Signal()

#: Sent when reconcile has published a message that was missing. Receivers get ``sender, task_id``.
message_relayed = Signal()

#: Asked before rows are purged. Receivers get ``sender`` and return a time: rows that ended since then stay.
rows_needed_since = Signal()
