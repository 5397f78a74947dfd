"""What is told of an error: what it was and where, and neither what somebody typed nor what would let somebody in."""

from __future__ import annotations

import traceback
from pathlib import Path
from types import TracebackType
from typing import Any

from flask import request, session

from microblog import logs
from microblog.accounts.models import id_in_session
from microblog.taskqueue.errors import WorkerDied
from microblog.text import replace_unstorable

ROOT = Path(__file__).resolve().parent.parent.parent
LONGEST = 50_000  # characters of a traceback that are kept: its end

Facts = dict[str, Any]


def of_error(error: BaseException, text: str = "") -> Facts:
    """The columns of a report that are about `error`; `text` is its traceback, for one that has lost its own."""
    own = "".join(traceback.format_exception(error)) if error.__traceback__ else text or repr(type(error))
    return {
        "exception": f"{type(error).__module__}.{type(error).__qualname__}"[:255],
        "place": _place(error.__traceback__)[:255],
        "traceback": replace_unstorable(logs.redact(own)[-LONGEST:]),
    }


def of_request() -> Facts:
    """The columns that are about the request under way."""
    return {
        "method": request.method[:16],
        "path": replace_unstorable(logs.redact(request.path))[:255],  # without the query
        "request_id": logs.request_id(),
        "user_id": id_in_session(str(session.get("_user_id", ""))),
    }


def of_task(task: Any, task_id: str) -> Facts:
    """The columns that are about a task that failed."""
    claim = getattr(task.request, "claim", None)
    return {
        "task_id": task_id,
        "task_name": task.name,
        "request_id": task.request.get("request_id"),
        "user_id": getattr(claim, "user_id", None),
        "place": task.name,
    }


def of_task_given_up(task_id: str, row: Any) -> Facts:
    """The columns about a task that took its workers down with it; `row` has its name, worker, crashes and so on."""
    told = f"It was given up after {row.crashes} workers died under it, the last of them {row.worker}."
    headers = row.signature.get("options", {}).get("headers") or {}
    return of_error(WorkerDied(), told) | {
        "task_id": task_id,
        "task_name": row.name,
        "request_id": headers.get("request_id"),
        "user_id": row.user_id,
        "place": row.name,
    }


def _place(frames: TracebackType | None) -> str:
    """The innermost line of our own; of whoever's, where none is ours. Empty for an error that was never raised."""
    summary = traceback.extract_tb(frames)
    ours = [frame for frame in summary if Path(frame.filename).is_relative_to(ROOT / "microblog")]
    for frame in (ours or summary)[-1:]:
        file = Path(frame.filename)
        name = file.relative_to(ROOT) if file.is_relative_to(ROOT) else file.name
        return f"{name}:{frame.lineno} in {frame.name}"
    return ""
