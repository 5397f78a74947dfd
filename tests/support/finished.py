"""Rows of tasks that have ended, as the engine leaves them."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta
from typing import Any

from microblog.clock import utcnow
from microblog.extensions import db
from microblog.taskqueue import states
from microblog.taskqueue.models import Task


def make_finished(
    *steps: tuple[str, str],
    at: datetime | None = None,
    wait: float | None = 1.0,
    run: float = 2.0,
    **columns: Any,
) -> str:
    """The id of a job whose steps have these names and states, one behind the other, the first one ended at `at`.

    Each waited `wait` seconds, None for one that never started, and ran `run` seconds.
    """
    root_id = str(uuid.uuid4())
    end = at or utcnow()
    created_at = end - timedelta(seconds=(wait or 0) + run)
    for position, (name, state) in enumerate(steps):
        started_at = end - timedelta(seconds=run) if wait is not None else None
        db.session.add(
            Task(
                id=root_id if position == 0 else str(uuid.uuid4()),
                root_id=root_id,
                position=position,
                name=name,
                queue="default",
                state=state,
                signature={},
                created_at=created_at,
                started_at=started_at,
                finished_at=end if state in states.FINISHED else None,
                **{"attempts": int(wait is not None)} | columns,
            )
        )
        end += timedelta(seconds=(wait or 0) + run)
    db.session.commit()
    return root_id
