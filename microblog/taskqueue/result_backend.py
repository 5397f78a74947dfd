"""The result backend: Celery's states go to Redis first, then to the task's row.

Every state except the claim's STARTED reaches a row through here. A row accepts a state only while it is unfinished and
only from the process that holds the task (see transitions.Writer). A state that the row would refuse is not stored in
Redis either. Tasks without a row are stored in Redis only.
"""

from __future__ import annotations

import contextlib
import logging
import time
from functools import cached_property
from typing import Any

import sqlalchemy as sa
from celery.app.task import Context
from celery.backends.redis import RedisBackend, SentinelBackend
from celery.exceptions import BackendStoreError, TaskRevokedError
from flask_babel import force_locale
from kombu.exceptions import EncodeError
from redis.commands.core import Script
from sqlalchemy.exc import SQLAlchemyError, StatementError

from microblog.database import OUTAGE_PAUSE, VALUE_ERRORS, DatabaseUnavailable, LogDatabaseErrors, is_value_error
from microblog.extensions import refuses
from microblog.taskqueue import states
from microblog.taskqueue.errors import ClaimLost, user_message
from microblog.taskqueue.interface import Claim, TaskChange, as_progress, task_changed
from microblog.taskqueue.launch import publish
from microblog.taskqueue.transitions import (
    UNFINISHED,
    StoredStep,
    Writer,
    accepts,
    store_failure,
    store_progress,
    store_retry,
    store_revoked,
    store_success,
    task_table,
)

logger = logging.getLogger(__name__)

# Stores a result unless it is too late: a later attempt has stored one, or a final one exists and this attempt is not
# later than that of the final one. A value that is malformed is replaced. A writer without a claim (ARGV[3] is empty)
# has no number to compare; its row has accepted the state before, so that only a final result stops it.
# Only the beginning and the end of the stored text are read, which are the state and the attempt (_store_result): cjson
# cannot decode all that Python encodes between them, such as half a surrogate pair.
_STORE = """
local stored = redis.pcall("GET", KEYS[1])
if type(stored) == "string" then
  local attempt = tonumber(ARGV[3])
  local status = string.match(stored, '^{"status": "(%u+)"')
  local stored_attempt = tonumber(string.match(stored, '"attempt": (%d+)}$'))
  local stored_is_final = status == "SUCCESS" or status == "FAILURE" or status == "REVOKED"
  local older = attempt and stored_attempt and attempt < stored_attempt
  local newer = attempt and stored_attempt and attempt > stored_attempt
  if older or stored_is_final and not newer then return 0 end
end
redis.call("SET", KEYS[1], ARGV[1], "EX", ARGV[2])
redis.call("PUBLISH", KEYS[1], ARGV[1])
return 1
"""
_SIGNATURE = sa.select(task_table.c.signature).where(task_table.c.id == sa.bindparam("task_id"))
_NEXT_STEP = sa.select(task_table.c.id).where(
    task_table.c.root_id == sa.bindparam("of_root"), task_table.c.position == sa.bindparam("next_position"), UNFINISHED
)


class _FencedWrite(Exception):
    """Raised if Redis has a result that this one must not replace."""


class DatabaseResultBackend(RedisBackend):
    """Celery's Redis backend, mirrored into the Task table."""

    @classmethod
    def url(cls, redis_url: str) -> str:
        """Return the value of Celery's setting ``result_backend`` for this class and the Redis at `redis_url`."""
        return f"{cls.__module__}:{cls.__qualname__}+{redis_url}"

    def exception_safe_to_retry(self, exc: Exception) -> bool:
        """Return whether a result that was not stored is tried again: Redis is unavailable or refuses to write."""
        return super().exception_safe_to_retry(exc) or refuses(exc)

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Do nothing. Celery's backend would subscribe the caller to the result, but no caller waits for one."""

    def encode(self, data: Any) -> Any:
        """As Celery's. Raises EncodeError also for a value that cannot be decoded, which no next step could receive."""
        payload = super().encode(data)
        try:
            self.decode(payload)
        except Exception as error:
            raise EncodeError(f"the value cannot be decoded ({error!r})") from error
        return payload

    def decode_result(self, payload: Any) -> dict[str, Any]:
        """As Celery's; a malformed result, which somebody else has stored, counts as none."""
        with contextlib.suppress(Exception):
            meta: dict[str, Any] = super().decode_result(payload)
            if {"status", "result"} <= meta.keys():
                return meta
        logger.warning("a result in Redis is malformed and counts as missing: %.200r", payload)
        return {"status": states.PENDING, "result": None}

    def exception_to_python(self, exc: Any) -> Any:
        """As Celery's; if a task has stored a value that is no error, the error about that."""
        try:
            return super().exception_to_python(exc)
        except Exception as error:
            return error

    # Called by Celery

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
        if _has_no_row(task_id, request):
            return super().store_result(task_id, result, state, traceback, request, **kwargs)
        writer = Writer.of(task_id, request)
        progress = None if state in (states.STARTED, states.RETRY, *states.FINISHED) else as_progress(state, result)
        if progress is not None and writer.claim is not None:
            if persist or not writer.claim.lease_valid:
                self._store_progress(writer.claim, progress)
        elif not self._row_accepts(writer, state):
            return result
        try:
            self._store_in_redis(task_id, result, state, traceback, request, wait=wait, **kwargs)
        except _FencedWrite:
            if writer.claim is not None:
                raise ClaimLost(f"{task_id} was taken over; its {state} is dropped") from None
            self.copy_result(task_id)
            return result
        if progress is None and state != states.STARTED:
            self._store_in_row(writer, result, state, traceback, request)
        elif writer.claim is not None:
            self._announce_running(writer.claim, progress)
        return result

    def _store_result(
        self, task_id: str, result: Any, state: str, traceback: str | None = None, request: Any = None, **kwargs: Any
    ) -> Any:
        """As Celery's, in one round trip that is atomic, and fenced by the number of the attempt."""
        if _has_no_row(task_id, request):
            return super()._store_result(task_id, result, state, traceback, request, **kwargs)
        claim = Writer.of(task_id, request).claim
        attempt = claim.attempt if claim else None
        meta = self._get_result_meta(result=result, state=state, traceback=traceback, request=request)
        meta |= {"task_id": task_id, "attempt": attempt}
        expires = self.failure_expires if state == states.FAILURE else self.expires
        arguments = [self.encode(meta), int(expires), attempt or ""]
        if not self._store(keys=[self.get_key_for_task(task_id)], args=arguments):
            raise _FencedWrite(task_id)
        return result

    # Called by the engine

    def end(self, task_id: str, error: Exception, request: Context | None = None) -> None:
        """End a task that no worker runs: REVOKED if `error` says that it was cancelled, else FAILURE.

        Raises BackendStoreError if Redis is unavailable.
        """
        state = states.REVOKED if isinstance(error, TaskRevokedError) else states.FAILURE
        self.store_result(task_id, error, state, request=request, wait=False)

    def has_result(self, task_id: str) -> bool:
        """Return whether Redis holds a terminal state. Raises redis.exceptions.RedisError."""
        return self._get_task_meta_for(task_id)["status"] in states.FINISHED

    def copy_result(self, task_id: str, request: Context | None = None) -> bool:
        """Copy a terminal state from Redis to a row that missed it.

        Returns whether Redis holds one. Raises redis.exceptions.RedisError.
        """
        meta = self._get_task_meta_for(task_id)
        if meta["status"] not in states.FINISHED:
            return False
        # This run has not executed the task and has set no next steps: reconcile publishes the next step from its row.
        writer = Writer.of(task_id, request)
        self._store_in_row(writer, meta["result"], meta["status"], meta.get("traceback"), request)
        return True

    # The steps of store_result()

    def _row_accepts(self, writer: Writer, state: str) -> bool:
        """Return whether the row would accept `state`; if not, Redis does not store it. A live lease needs no query."""
        if writer.claim is not None and (writer.claim.lease_valid or state == states.STARTED):
            return True  # STARTED is stored right after the claim
        task_id = writer.parameters["task_id"]
        with LogDatabaseErrors(logger, "%s of %s is stored in Redis without a check of its row", state, task_id):
            return accepts(self.app.executor, writer)
        return True

    def _store_progress(self, claim: Claim, meta: dict[str, Any]) -> None:
        with LogDatabaseErrors(logger, "progress of %s is not in its row", claim.task_id):
            store_progress(self.app.executor, claim, meta, lease=self.app.flask_app.config["TASK_LEASE"])

    @cached_property
    def _store(self) -> Script:
        script: Script = self.client.register_script(_STORE)
        return script

    def _store_in_redis(
        self, task_id: str, result: Any, state: str, *details: Any, wait: bool = True, **kwargs: Any
    ) -> None:
        """Store a state by Celery's own means; one that is not terminal is dropped while Redis is unavailable."""
        # An option of Celery's store_result(), which otherwise retries as result_backend_always_retry says.
        retries = {} if wait and state in states.FINISHED else {"max_retries": 0}
        try:
            super().store_result(task_id, result, state, *details, **retries, **kwargs)
        except BackendStoreError:
            if state in states.FINISHED:
                raise
            logger.warning("Redis is unavailable; %s of %s is not stored there", state, task_id)

    def _store_in_row(
        self, writer: Writer, result: Any, state: str, traceback: str | None, request: Context | None
    ) -> None:
        """Store RETRY or a terminal state in the row, publish or end the next step, and announce the state."""
        task_id = writer.parameters["task_id"]
        if writer.claim is not None:
            # Give up the lease: later writes of this run are checked in the row.
            writer.claim.valid_until, writer.claim.ended = 0.0, True
        try:
            try:
                step = self._update_row_patiently(writer, result, state, traceback, request)
            except (StatementError, *VALUE_ERRORS) as error:
                if not is_value_error(error):
                    raise
                logger.exception("%s of %s contains a value that the database cannot store: it fails", state, task_id)
                result, state = error, states.FAILURE
                step = self._update_row(writer, result, state, None, request)
            if step is None:
                return
            self._advance_chain(step, writer.claim, result, state, traceback)
        except (SQLAlchemyError, BackendStoreError):
            logger.exception("%s of %s is stored only in part; reconcile does the rest", state, task_id)
            return
        self._announce(
            TaskChange(task_id, step.root_id, step.position, step.user_id, state, None, step.updated_at, step.name)
        )

    def _update_row_patiently(self, writer: Writer, result: Any, state: str, *details: Any) -> StoredStep | None:
        """As _update_row(); a retry of this run waits for the database: its signature is stored nowhere else."""
        while True:
            try:
                return self._update_row(writer, result, state, *details)
            except DatabaseUnavailable as error:
                if writer.claim is None or state != states.RETRY:
                    raise
                task_id = writer.parameters["task_id"]
                logger.warning("the database is unavailable (%s); the retry of %s waits for it", error.orig, task_id)
                time.sleep(OUTAGE_PAUSE)

    def _update_row(
        self, writer: Writer, result: Any, state: str, traceback: str | None, request: Context | None
    ) -> StoredStep | None:
        executor = self.app.executor
        if state == states.SUCCESS:
            return store_success(executor, writer, result)
        sentence = self._sentence(writer.parameters["task_id"], result, request)
        if state == states.RETRY:
            return store_retry(executor, writer, sentence, traceback)
        if state == states.REVOKED:
            return store_revoked(executor, writer, sentence, traceback)
        return store_failure(executor, writer, result, sentence, traceback)

    def _advance_chain(
        self, step: StoredStep, claim: Claim | None, result: Any, state: str, traceback: str | None
    ) -> None:
        """Publish the next step, or a retry without a pause; end the next step after a failure or a cancellation.

        Celery itself ends them only if the request has the rest of the chain, and never after a cancellation.
        """
        if state == states.SUCCESS:
            if claim is not None and claim.next_steps:
                publish(self.app.executor, claim.next_steps[::-1], result)
        elif state == states.RETRY:
            if claim is not None and claim.retry is not None and claim.retry_pause <= 0:
                publish(self.app.executor, [claim.retry, *claim.next_steps[::-1]])
        elif state in states.FINISHED:
            following = {"of_root": step.root_id, "next_position": step.position + 1}
            for (next_id,) in self.app.executor.execute(_NEXT_STEP, **following):
                self.store_result(next_id, result, state, traceback, wait=False)

    def _sentence(self, task_id: str, error: BaseException, request: Context | None) -> str:
        """Return the sentence about `error` in the language of the task's user."""
        locale = getattr(request, "locale", None) or self.app.flask_app.config["BABEL_DEFAULT_LOCALE"]
        if getattr(request, "locale", None) is None:  # ended by a process that did not get its message
            with contextlib.suppress(DatabaseUnavailable):  # then the row is not written either
                for (signature,) in self.app.executor.execute(_SIGNATURE, task_id=task_id):
                    locale = (signature.get("options", {}).get("headers") or {}).get("locale") or locale
        with self.app.flask_app.app_context(), force_locale(locale):
            return user_message(error)

    def _announce_running(self, claim: Claim, progress: dict[str, Any] | None) -> None:
        state = states.STARTED if progress is None else states.PROGRESS
        self._announce(
            TaskChange(claim.task_id, claim.root_id, claim.position, claim.user_id, state, progress, claim.now)
        )

    def _announce(self, change: TaskChange) -> None:
        task_changed.send(self.app, change=change)


class SentinelResultBackend(DatabaseResultBackend, SentinelBackend):
    """The same backend, connected to the current master of a group with Redis Sentinel."""


def _has_no_row(task_id: str, request: Context | None) -> bool:
    """Return whether JobTask has found that the task has no row; false before its claim and in other processes."""
    return getattr(request, "has_no_row", False) and getattr(request, "id", None) == task_id
