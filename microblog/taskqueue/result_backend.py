"""The result backend: Celery's states go to Redis first, then to the task's row.

Every state except the claim's STARTED reaches a row here and nowhere else. A row accepts a state only while it is
unfinished and only from the process that holds the task (see :class:`Writer`). A state that the row would refuse is not
stored in Redis either. Tasks without a row are stored in Redis only.
"""

from __future__ import annotations

import contextlib
import logging
from datetime import timedelta
from functools import cached_property
from typing import Any, NamedTuple

import sqlalchemy as sa
from celery.app.task import Context
from celery.backends.redis import RedisBackend
from celery.exceptions import BackendStoreError, TaskRevokedError
from flask_babel import force_locale
from redis.commands.core import Script

from microblog.clock import utcnow
from microblog.database import DatabaseUnavailable
from microblog.taskqueue import states
from microblog.taskqueue.interface import Cancelled, ClaimLost, TaskChange, WorkerDied, task_changed, user_message
from microblog.taskqueue.launch import publish
from microblog.taskqueue.transitions import (
    CRASHED,
    EXPIRES,
    NOW,
    UNFINISHED,
    UNHELD,
    Claim,
    task_table,
)

logger = logging.getLogger(__name__)

# Stores a result unless it comes too late: a later attempt has stored one, or this one (or nobody's) is final.
_STORE = """
local kept = redis.call("GET", KEYS[1])
if kept then
  local meta, mine = cjson.decode(kept), tonumber(ARGV[3])
  local theirs = tonumber(meta.attempt)
  local final = meta.status == "SUCCESS" or meta.status == "FAILURE" or meta.status == "REVOKED"
  if mine and theirs and mine < theirs or final and not (mine and theirs and mine > theirs) then return 0 end
end
redis.call("SET", KEYS[1], ARGV[1], "EX", ARGV[2])
redis.call("PUBLISH", KEYS[1], ARGV[1])
return 1
"""
_UNKNOWN = object()  # unlike None, which says that a task has no row
_ID = task_table.c.id == sa.bindparam("task_id")
_BY_HOLDER = sa.and_(_ID, UNFINISHED, task_table.c.attempts == sa.bindparam("attempt"))
_BY_WORKER = sa.and_(_ID, UNFINISHED, sa.or_(UNHELD, task_table.c.worker == sa.bindparam("by")))
_IDENTITY = (task_table.c.root_id, task_table.c.position, task_table.c.user_id, task_table.c.name)
_FIND = sa.select(*_IDENTITY).where(_ID)
_SIGNATURE = sa.select(task_table.c.signature).where(_ID)
_NEXT_STEP = sa.select(task_table.c.id).where(
    task_table.c.root_id == sa.bindparam("of_root"), task_table.c.position == sa.bindparam("next_position"), UNFINISHED
)
# Built once: the statement that nearly every task ends with.
_SUCCEED = (
    sa.update(task_table)
    .values(
        state=states.SUCCESS,
        result=sa.bindparam("outcome", type_=task_table.c.result.type),
        progress=100,
        current=sa.func.coalesce(task_table.c.total, task_table.c.current),
        error=None,
        lease_expires_at=None,
        finished_at=NOW,
        updated_at=NOW,
    )
    .returning(*_IDENTITY)
)
_SUCCEED_BY_HOLDER, _SUCCEED_BY_WORKER = _SUCCEED.where(_BY_HOLDER), _SUCCEED.where(_BY_WORKER)


class Writer(NamedTuple):
    """The writer of a state, and the condition under which the row accepts it.

    A task itself holds a claim: the row must still be on that attempt. The worker's main process (time limits, lost
    processes) and anybody else (cancel, reconcile) may write only what nobody else holds.
    """

    claim: Claim | None
    condition: sa.ColumnElement[bool]
    parameters: dict[str, Any]

    @classmethod
    def of(cls, task_id: str, request: Context | None) -> Writer:
        """The writer behind `request`, the context that Celery hands to the backend."""
        claim: Claim | None = getattr(request, "claim", None)
        if claim is not None:
            return cls(claim, _BY_HOLDER, {"task_id": task_id, "attempt": claim.attempt})
        by = getattr(request, "hostname", None) or ""
        return cls(None, _BY_WORKER, {"task_id": task_id, "by": by, "now": utcnow()})


class _TooLate(Exception):
    """Redis has a result that this one must not replace."""


class DatabaseResultBackend(RedisBackend):
    """Celery's Redis backend, mirrored into the Task table; ``result_backend = "…:DatabaseResultBackend+redis://…"``."""

    @cached_property
    def _store(self) -> Script:
        script: Script = self.client.register_script(_STORE)
        return script

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Nothing: Celery's own subscribes whoever launches a task to its result, and nobody here waits for one."""

    def store_result(
        self,
        task_id: str,
        result: Any,
        state: str,
        traceback: str | None = None,
        request: Context | None = None,
        *,
        wait: bool = True,
        persist: bool = True,
        **kwargs: Any,
    ) -> Any:
        """Store a state in Redis, then in the row, then announce it; a success publishes the next step.

        A terminal state waits for Redis unless `wait` is false. With `persist` false a PROGRESS goes to Redis only. A
        row that cannot be written is left to reconcile. Raises BackendStoreError if a terminal state is not in Redis,
        ClaimLost if the task was taken over, and Cancelled from a PROGRESS if its user has cancelled it.
        """
        if getattr(request, "claim", _UNKNOWN) is None:
            return super().store_result(task_id, result, state, traceback, request, **kwargs)
        writer = Writer.of(task_id, request)
        if state == states.PROGRESS and writer.claim is not None:
            if persist or not writer.claim.fresh:
                self._write_progress(writer.claim, writer, result)
        elif not self._may_store(writer, state):
            return result
        try:
            self._store_in_redis(task_id, result, state, traceback, request, wait=wait, **kwargs)
        except _TooLate:
            if writer.claim is not None:
                raise ClaimLost(f"{task_id} was taken over; its {state} is dropped") from None
            self.copy_outcome(task_id)
            return result
        if state not in (states.STARTED, states.PROGRESS):
            self._write_outcome(writer, result, state, traceback, request)
        elif writer.claim is not None:
            held = writer.claim
            progress = result if state == states.PROGRESS else None
            self._announce(task_id, (held.root_id, held.position, held.user_id, None), state, progress)
        return result

    def _store_in_redis(
        self, task_id: str, result: Any, state: str, *details: Any, wait: bool = True, **kwargs: Any
    ) -> None:
        """Store a state by Celery's own means; one that is not terminal is dropped while Redis is unavailable."""
        patience = {} if wait and state in states.FINISHED else {"max_retries": 0}
        try:
            super().store_result(task_id, result, state, *details, **patience, **kwargs)
        except BackendStoreError:
            if state in states.FINISHED:
                raise
            logger.warning("Redis is unavailable; %s of %s is not stored there", state, task_id)

    def _store_result(
        self, task_id: str, result: Any, state: str, traceback: str | None = None, request: Any = None, **kwargs: Any
    ) -> Any:
        """As Celery's, in one round trip that nobody can come between, and fenced by the number of the attempt."""
        if getattr(request, "claim", _UNKNOWN) is None:
            return super()._store_result(task_id, result, state, traceback, request, **kwargs)
        claim: Claim | None = getattr(request, "claim", None)
        meta = self._get_result_meta(result=result, state=state, traceback=traceback, request=request)
        meta |= {"task_id": task_id, "attempt": claim.attempt if claim else None}
        arguments = [self.encode(meta), int(self.expires), claim.attempt if claim else ""]
        if not self._store(keys=[self.get_key_for_task(task_id)], args=arguments):
            raise _TooLate(task_id)
        return result

    def end(self, task_id: str, error: Exception, request: Context | None = None) -> None:
        """End a task that nobody runs: REVOKED if `error` says that it was cancelled, else FAILURE.

        Raises BackendStoreError if Redis is away.
        """
        state = states.REVOKED if isinstance(error, TaskRevokedError) else states.FAILURE
        self.store_result(task_id, error, state, request=request, wait=False)

    def holds_outcome(self, task_id: str) -> bool:
        """Return whether Redis holds a terminal state. Raises redis.exceptions.RedisError."""
        return self._get_task_meta_for(task_id)["status"] in states.FINISHED

    def copy_outcome(self, task_id: str, request: Context | None = None) -> bool:
        """Bring a terminal state that Redis holds into a row that missed it.

        Returns whether Redis holds one. Raises redis.exceptions.RedisError.
        """
        meta = self._get_task_meta_for(task_id)
        if meta["status"] not in states.FINISHED:
            return False
        writer = Writer.of(task_id, request)
        self._write_outcome(writer, meta["result"], meta["status"], meta.get("traceback"), request)
        return True

    def _may_store(self, writer: Writer, state: str) -> bool:
        """Return whether the row would take `state`: only then does it go to Redis. Costs nothing on a fresh claim."""
        if writer.claim is not None and (writer.claim.fresh or state == states.STARTED):
            return True
        try:
            if self.app.rows.execute(sa.select(task_table.c.id).where(writer.condition), **writer.parameters):
                return True
            found = self.app.rows.execute(_FIND, task_id=writer.parameters["task_id"])
        except DatabaseUnavailable:
            logger.warning("the database is away; storing %s in Redis alone", state, exc_info=True)
            return True
        if found and writer.claim is not None:
            raise ClaimLost(f"{writer.claim.task_id} was taken over; its {state} is dropped")
        return not found

    def _write_progress(self, claim: Claim, writer: Writer, meta: dict[str, Any]) -> None:
        """Write progress and extend the lease by it; hear of a takeover or a cancellation on the way."""
        now = utcnow()
        expires = now + timedelta(seconds=self.app.flask_app.config["TASK_LEASE"])
        try:
            written = self.app.rows.execute(
                sa.update(task_table).where(writer.condition).values(
                    state=states.PROGRESS,
                    progress=meta.get("percent", 0),
                    current=meta.get("current", 0),
                    total=meta.get("total"),
                    message=meta.get("message", ""),
                    lease_expires_at=EXPIRES,
                    updated_at=NOW,
                ).returning(task_table.c.cancel_requested_at),
                **writer.parameters,
                expires=expires,
                now=now,
            )  # fmt: skip
        except DatabaseUnavailable:
            logger.warning("the database is away; progress of %s is not in its row", claim.task_id)
            return
        if not written:
            raise ClaimLost(f"{claim.task_id} was taken over")
        if written[0].cancel_requested_at is not None:
            raise Cancelled
        claim.expires_at = expires

    def _write_outcome(
        self, writer: Writer, result: Any, state: str, traceback: str | None, request: Context | None
    ) -> None:
        """Write RETRY or a terminal state, and let the step behind it begin, or end as badly."""
        task_id = writer.parameters["task_id"]
        now = utcnow()
        parameters = {**writer.parameters, "now": now}
        if state == states.SUCCESS:
            statement = _SUCCEED_BY_HOLDER if writer.claim else _SUCCEED_BY_WORKER
            parameters["outcome"] = result if isinstance(result, dict) else {"result": result}
        else:
            values = self._failure_values(task_id, result, state, traceback, request)
            statement = sa.update(task_table).where(writer.condition).values(values).returning(*_IDENTITY)
        if writer.claim is not None:
            writer.claim.expires_at = now  # spent: whatever its holder stores after this is looked at first
        try:
            written = self.app.rows.execute(statement, **parameters)
            if not written:
                return
            step = written[0]
            if state == states.SUCCESS:
                if behind := getattr(request, "behind", None):
                    publish(self.app.rows, behind[::-1], result)
            elif state in states.FINISHED:
                following = {"of_root": step.root_id, "next_position": step.position + 1}
                for (next_id,) in self.app.rows.execute(_NEXT_STEP, **following):
                    self.store_result(next_id, result, state, traceback, wait=False)
        except (DatabaseUnavailable, BackendStoreError):
            logger.exception("%s of %s is stored in part; reconcile will do the rest", state, task_id)
            return
        self._announce(task_id, tuple(step), state)

    def _failure_values(
        self, task_id: str, result: Any, state: str, traceback: str | None, request: Context | None
    ) -> dict[str, Any]:
        locale = getattr(request, "locale", None) or self._locale(task_id)
        with self.app.flask_app.app_context(), force_locale(locale):
            told = user_message(result)
        end = {"eta": getattr(request, "retry_at", None) or NOW} if state == states.RETRY else {"finished_at": NOW}
        values = {"state": state, "error": told, "traceback": traceback, "lease_expires_at": None, "updated_at": NOW}
        # Nobody will claim the task any more, and count by it the last of the workers that died.
        died = {"crashes": task_table.c.crashes + CRASHED} if isinstance(result, WorkerDied) else {}
        return values | end | died

    def _locale(self, task_id: str) -> str:
        """The language of a task that is ended by somebody who did not get its message."""
        locale: str = self.app.flask_app.config["BABEL_DEFAULT_LOCALE"]
        with contextlib.suppress(DatabaseUnavailable):  # then the row is not written either
            for (signature,) in self.app.rows.execute(_SIGNATURE, task_id=task_id):
                locale = (signature.get("options", {}).get("headers") or {}).get("locale") or locale
        return locale

    def _announce(
        self,
        task_id: str,
        step: tuple[str, int, int | None, str | None],
        state: str,
        progress: dict[str, Any] | None = None,
    ) -> None:
        root_id, position, user_id, name = step
        change = TaskChange(task_id, root_id, position, user_id, state, progress, utcnow(), name)
        task_changed.send(self.app, change=change)
