"""Table of tasks: Celery's state of every launched task, stored permanently."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from kombu.utils.json import dumps, loads
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import Mapped, mapped_column

from microblog.database import DatabaseTime
from microblog.extensions import Model
from microblog.taskqueue import states
from microblog.validators import replace_unstorable

# A literal, since partial indexes are matched by the text of their condition.
_UNFINISHED = sa.text("state IN ({})".format(", ".join(f"'{state}'" for state in states.UNFINISHED)))
_ENDED = sa.text("finished_at IS NOT NULL")
_ROOT = sa.text("position = 0")
_ESCAPED_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")  # in JSON, after any number of escaped backslashes


def _partial(name: str, *columns: str, where: sa.TextClause, **options: Any) -> sa.Index:
    return sa.Index(name, *columns, sqlite_where=where, postgresql_where=where, **options)


class CleanText(sa.types.TypeDecorator[str]):
    """Text from outside, such as a mail server's reply: cut to `limit` characters, without those no database stores."""

    impl = sa.Text
    cache_ok = True

    def __init__(self, limit: int = 10_000) -> None:
        super().__init__()
        self.limit = limit

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> str | None:
        return None if value is None else replace_unstorable(value[: self.limit])


class CleanJSON(sa.types.TypeDecorator[Any]):
    """The JSON that Celery's serializer makes of a value: it knows times, decimals, UUIDs and bytes.

    Characters that no database stores are replaced, and NaN and infinities, which are no JSON, are stored as text.
    """

    impl = sa.JSON
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> Any:
        if value is None:
            return None
        # As text, since a recursive function fails for lists that are nested half as deeply as JSON allows.
        text = replace_unstorable(dumps(value, ensure_ascii=False))  # type: ignore[no-untyped-call]
        text = _ESCAPED_NUL.sub(r"\1\\ufffd", text)
        return json.loads(text, parse_constant=str)


class Task(Model):
    """One Celery task: one step of one job.

    The steps of a job share `root_id`, the id of the first. Rows are changed by the functions of transitions.py and
    nowhere else. A row whose state is SUCCESS, FAILURE or REVOKED never changes again, until its user's data are
    removed from it (anonymize_tasks) or it is deleted (purge_tasks).
    """

    __tablename__ = "task"

    id: Mapped[str] = mapped_column(sa.String(36), primary_key=True)
    root_id: Mapped[str] = mapped_column(sa.String(36))
    position: Mapped[int] = mapped_column(default=0)
    user_id: Mapped[int | None] = mapped_column(sa.ForeignKey("user.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(sa.String(128))
    description: Mapped[str] = mapped_column(CleanText, default="")
    state: Mapped[str] = mapped_column(sa.String(16), default=states.PENDING)

    progress: Mapped[int] = mapped_column(default=0)  # per cent
    current: Mapped[int] = mapped_column(sa.BigInteger, default=0)
    total: Mapped[int | None] = mapped_column(sa.BigInteger)
    message: Mapped[str] = mapped_column(CleanText, default="")

    result: Mapped[dict[str, Any] | None] = mapped_column(CleanJSON(none_as_null=True))  # see wrap_result()
    error: Mapped[str | None] = mapped_column(CleanText)  # a sentence for the user
    traceback: Mapped[str | None] = mapped_column(CleanText(100_000))  # for operators only; empty after a UserError

    queue: Mapped[str] = mapped_column(sa.String(64))
    worker: Mapped[str | None] = mapped_column(sa.String(255))
    attempts: Mapped[int] = mapped_column(default=0)  # claims so far; the latest one's number is its fencing token
    crashes: Mapped[int] = mapped_column(default=0)  # claims whose worker died
    signature: Mapped[dict[str, Any]] = mapped_column(sa.JSON)  # what to publish for the first attempt
    retry_signature: Mapped[dict[str, Any] | None] = mapped_column(sa.JSON(none_as_null=True))  # and for the next one
    retries: Mapped[int] = mapped_column(default=0, server_default="0")  # automatic retries, as Celery counts them

    published_at: Mapped[datetime | None]
    eta: Mapped[datetime | None]  # when the next message is due: reconcile publishes it then
    lease_expires_at: Mapped[datetime | None]  # null: waits, or was released; in the past: its worker died
    cancel_requested_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(default=DatabaseTime())
    updated_at: Mapped[datetime] = mapped_column(default=DatabaseTime())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    retried_from: Mapped[str | None] = mapped_column(sa.String(36))

    __table_args__ = (
        # One unfinished job of a kind per user. A job inserts the rows of all its steps at once, so two jobs of a
        # kind collide as long as any step of the first is unfinished. Rows of the system (user_id null) never do.
        _partial("uq_task_unfinished_per_user", "user_id", "name", where=_UNFINISHED, unique=True),
        # The only rows that reconcile reads.
        _partial("ix_task_unfinished", "created_at", where=_UNFINISHED),
        _partial("ix_task_finished_at", "finished_at", where=_ENDED),
        _partial("ix_task_user_id_created_at_id", "user_id", "created_at", "id", where=_ROOT),
        # Operators' lists (monitoring/filters.py): mostly of ended rows, so that running tasks do not update them.
        _partial("ix_task_created_at", "created_at", where=_ROOT),
        _partial("ix_task_failed_created_at", "created_at", where=sa.text("state = 'FAILURE'")),
        _partial("ix_task_revoked_created_at", "created_at", where=sa.text("state = 'REVOKED'")),
        _partial("ix_task_name_created_at", "name", "created_at", where=_ENDED),
        _partial("ix_task_queue_created_at", "queue", "created_at", where=_ENDED),
        _partial("ix_task_worker_created_at", "worker", "created_at", where=_ENDED),
        _partial("ix_task_retried_from", "retried_from", where=sa.text("retried_from IS NOT NULL")),
        sa.Index("ix_task_root_id_position", "root_id", "position"),
        sa.Index("ix_task_user_id_updated_at", "user_id", "updated_at"),
    )

    def __repr__(self) -> str:
        return f"<Task {self.id} {self.name} {self.state}>"

    def get_progress(self) -> int:
        """Return the progress of the task, 0 to 100 per cent; a failed task keeps its last value."""
        return self.progress

    @property
    def return_value(self) -> Any:
        """The value that the task returned, as Celery's result backend returns it; None before it has succeeded."""
        result = self.result or {}
        return loads(dumps(result["result"] if set(result) == {"result"} else self.result))  # type: ignore[no-untyped-call]

    @hybrid_property
    def unfinished(self) -> bool:
        """Return whether the task has not ended."""
        return self.state in states.UNFINISHED

    @unfinished.inplace.expression
    @classmethod
    def _unfinished(cls) -> sa.ColumnElement[bool]:
        # Literals again, so that the planner recognises the partial indexes.
        return cls.state.in_(
            sa.bindparam("states", states.UNFINISHED, expanding=True, literal_execute=True, unique=True)
        )


def wrap_result(value: Any) -> dict[str, Any]:
    """Return `value` as stored in `Task.result`: a dict unchanged, any other value as ``{"result": …}``.

    A dict whose only key is ``result`` is wrapped, too, so that it can be distinguished from a wrapped value.
    """
    return value if isinstance(value, dict) and set(value) != {"result"} else {"result": value}
