"""Launch a job: its rows and its message as one unit; and publish messages of tasks that have a row."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from celery import Signature
from celery.utils import uuid
from flask import current_app
from flask_babel import force_locale, get_locale
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session, make_transient_to_detached

from microblog import logs
from microblog.clock import utcnow
from microblog.database import AutocommitExecutor, DatabaseUnavailable
from microblog.extensions import BROKER_UNAVAILABLE, db
from microblog.taskqueue import states
from microblog.taskqueue.interface import TaskChange, task_changed
from microblog.taskqueue.models import Task
from microblog.taskqueue.transitions import NOW, UNFINISHED, task_table

logger = logging.getLogger(__name__)

_INSERTS = {
    "sqlite": sqlite.insert(task_table).on_conflict_do_nothing().returning(task_table.c.id),
    "postgresql": postgresql.insert(task_table).on_conflict_do_nothing().returning(task_table.c.id),
}


class AlreadyRunning(Exception):
    """The user has an unfinished job of this kind; `task` is its unfinished step."""

    def __init__(self, task: Task | None) -> None:
        super().__init__("an unfinished job of this kind exists")
        self.task = task


def launch_task(name: str, description: str, *args: Any, user_id: int | None = None, **kwargs: Any) -> Task:
    """Launch the job that begins with the registered task `name`; see launch(). Raises LookupError if unknown."""
    registered = current_app.extensions["celery"].tasks
    if name not in registered:
        raise LookupError(f"no task is called {name!r}")
    first = registered[name]
    steps = [first.s(*args, **kwargs), *(registered[following].s() for following in first.followed_by)]
    return launch(steps, description=description, user_id=user_id)


def launch(
    steps: Sequence[Signature],
    *,
    description: str = "",
    user_id: int | None = None,
    retried_from: str | None = None,
) -> Task:
    """Start a job: a chain of `steps`, each called with the result of the one before.

    Writes one row for each step in the caller's own transaction, ids fixed; when that commits, the job is published;
    if it rolls back, nothing was ever there. A broker that is away is no error: the rows stay unpublished and
    reconcile publishes them. `description` is what the user reads of the first step (default: its title).

    Returns the first step's row. Raises AlreadyRunning if the user has an unfinished job with a step of the same
    name, and TypeError if the arguments do not fit the first task.
    """
    steps[0].type.__header__(*steps[0].args, **steps[0].kwargs)  # as Celery checks them, but before the commit
    rows = _new_rows(steps, description, user_id, retried_from)
    session = db.session()
    insert = _INSERTS[session.get_bind().dialect.name]
    # Not through the ORM, which would spend more on two rows than all the rest of a launch.
    inserted = session.connection().execute(insert, rows).scalars().all()
    if len(inserted) < len(rows):
        session.execute(sa.delete(Task).where(Task.id.in_(inserted)))
        same_kind = sa.select(Task).where(Task.user_id == user_id, Task.name.in_([row["name"] for row in rows]))
        raise AlreadyRunning(session.scalar(same_kind.where(Task.unfinished).limit(1)))
    session.info.setdefault("launched", []).append(rows)
    root = Task(**rows[0])
    make_transient_to_detached(root)
    session.add(root)
    return root


def _new_rows(
    steps: Sequence[Signature], description: str, user_id: int | None, retried_from: str | None
) -> list[dict[str, Any]]:
    ids = [uuid() for _ in steps]
    now = utcnow()
    # A job that is tried again speaks its user's language, whoever asks for it.
    locale = (steps[0].options.get("headers") or {}).get("locale") or str(get_locale() or "en")
    headers = {"request_id": logs.request_id(), "locale": locale}
    rows = []
    for position, (task_id, step) in enumerate(zip(ids, steps, strict=True)):
        # With the root named, since Celery would take whichever task publishes it, such as reconcile, for the root.
        signature = step.clone().set(task_id=task_id, root_id=ids[0], headers=headers)
        task = step.type
        with force_locale(locale):
            title = str(task.title)
        rows.append(
            {
                "id": task_id,
                "root_id": ids[0],
                "position": position,
                "user_id": user_id,
                "name": step.task,
                "description": (description if position == 0 else "") or title or step.task,
                "state": states.PENDING,
                "queue": task.app.amqp.router.route(step.options, step.task)["queue"].name,
                "signature": dict(signature),
                "created_at": now,
                "updated_at": now,
                "retried_from": retried_from if position == 0 else None,
            }
        )
    return rows


@sa.event.listens_for(db.session, "after_commit")
def _publish_launched(session: Session) -> None:
    if session.in_nested_transaction():
        return
    for rows in session.info.pop("launched", []):
        app = current_app.extensions["celery"]
        first = rows[0]
        change = TaskChange(first["id"], first["id"], 0, first["user_id"], states.PENDING, None, first["updated_at"])
        if publish(app.rows, [row["signature"] for row in rows]):
            task_changed.send(app, change=change)


@sa.event.listens_for(db.session, "after_rollback")
def _forget_launched(session: Session) -> None:
    if not session.in_nested_transaction():  # what a savepoint took back is not there to be published
        session.info.pop("launched", None)


# Whoever wins this UPDATE publishes; `seen` is the published_at that it replaces.
_TAKE = sa.update(task_table).where(task_table.c.id == sa.bindparam("task_id"), UNFINISHED).values(published_at=NOW)
_TAKE_NEW = _TAKE.where(task_table.c.published_at.is_(None)).returning(task_table.c.id)
_TAKE_AGAIN = _TAKE.where(task_table.c.published_at == sa.bindparam("seen")).returning(task_table.c.id)
_GIVE_BACK = (
    sa.update(task_table)
    .where(task_table.c.id == sa.bindparam("task_id"), task_table.c.published_at == NOW)
    .values(published_at=None)
)


def publish(
    rows: AutocommitExecutor, signatures: Sequence[dict[str, Any]], *results: Any, seen: datetime | None = None
) -> bool:
    """Publish what remains of a job: its next step, with the steps behind it chained to it.

    `signatures` are the rows' own, in order; `results` holds what the step before returned, for a step that has one
    before it. Only one of several callers publishes: the one that finds `published_at` as it was `seen`, None for
    the first time. Returns whether this call did. A broker that is away makes it False, and the row unpublished.
    """
    task_id = signatures[0]["options"]["task_id"]
    now = utcnow()
    take, found = (_TAKE_NEW, {}) if seen is None else (_TAKE_AGAIN, {"seen": seen})
    try:
        if not rows.execute(take, task_id=task_id, now=now, **found):
            return False
        first, *behind = (Signature.from_dict(signature) for signature in signatures)
        # As chain(…).apply_async() does it when it has given out ids, which these steps have already.
        first.apply_async(results, chain=behind[::-1] or None)
    except DatabaseUnavailable:
        logger.warning("the database is away; %s is published later", task_id)
        return False
    except Exception as error:  # the commit has happened: whatever is wrong must not look as if it had not
        if isinstance(error, BROKER_UNAVAILABLE):
            logger.warning("the broker is away; %s is published later", task_id)
        else:
            logger.exception("%s cannot be published", task_id)
        with contextlib.suppress(DatabaseUnavailable):  # it then looks published, and is missed like a lost message
            rows.execute(_GIVE_BACK, task_id=task_id, now=now)
        return False
    return True
