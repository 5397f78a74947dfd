"""Jobs that are in the Task table without anybody having run them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from microblog.accounts.models import User
from microblog.clock import utcnow
from microblog.extensions import db
from microblog.taskqueue.models import Task


def make_job(user: User | None, *step_states: str, seconds_ago: float = 0, **columns: Any) -> str:
    """The id of an export whose steps are in these states."""
    root = f"{user.username if user else 'system'}-{'-'.join(step_states)}-{seconds_ago}".lower()
    at = utcnow() - timedelta(seconds=seconds_ago)
    for position, state in enumerate(step_states):
        name = columns.get("name", ("export_posts", "email_export")[position])
        args = [user.id] if user and not position else []
        facts = {
            "id": f"{root}-{position}" if position else root,
            "root_id": root,
            "position": position,
            "user_id": user.id if user else None,
            "name": name,
            "state": state,
            "queue": "exports",
            "signature": {"task": name, "args": args, "kwargs": {}, "options": {}},
            "created_at": at,
            "updated_at": at,
        }
        db.session.add(Task(**facts | columns))
    db.session.commit()
    return root
