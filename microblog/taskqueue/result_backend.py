"""The result backend: Celery's states go to Redis first, then to the task's row.

Every state except the claim's STARTED reaches a row through here. A row accepts a state only while it is unfinished and
only from the process that holds the task (see transitions.Writer). A state that the row would refuse is not stored in
Redis either. Tasks without a row are stored in Redis only.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import sqlalchemy as sa
from celery.app.task import Context
from celery.backends.redis import RedisBackend, SentinelBackend
from celery.exceptions import BackendStoreError, TaskRevokedError
from flask_babel import force_locale
from kombu.exceptions import EncodeError
from redis.commands.core import Script
from sqlalchemy.exc import StatementError

from microblog.database import OUTAGE_PAUSE, VALUE_ERRORS, DatabaseUnavailable, LogDatabaseErrors, is_value_error
from microblog.extensions import REDIS_UNAVAILABLE, refuses
from microblog.taskqueue import states
from microblog.taskqueue.errors import ClaimLost, UserError, user_message
from microblog.taskqueue.interface import Claim, TaskChange, as_progress, describe_ids, task_changed
from microblog.taskqueue.launch import publish
from microblog.taskqueue.transitions import (
    UNFINISHED,
    StoredStep,
    Writer,
    accepted_ids,
    store_failure,
    store_progress,
    store_retry,
    store_revoked,
    store_success,
    task_table,
)

logger = logging.getLogger(__name__)

# Stores the results of several tasks, each unless it is too late: a later attempt has stored one, or a final one exists
# and this attempt is not later than that of the final one. Returns the numbers of those that are too late. A value that
# is malformed is replaced. A writer without a claim (ARGV[2] is empty) has no number to compare; its row has accepted
# the state before, so that only a final result stops it.
# Only the beginning and the end of the stored text are read, which are the state and the attempt (_store_result): cjson
# cannot decode all that Python encodes between them, such as half a surrogate pair.
_STORE = """
local too_late = {}
for i, key in ipairs(KEYS) do
  local stored = redis.pcall("GET", key)
  local older, stored_is_final, newer
  if type(stored) == "string" then
    local attempt = tonumber(ARGV[2])
    local status = string.match(stored, '^{"status": "(%u+)"')
    local stored_attempt = tonumber(string.match(stored, '"attempt": (%d+)}$'))
    stored_is_final = status == "SUCCESS" or status == "FAILURE" or status == "REVOKED"
    older = attempt and stored_attempt and attempt < stored_attempt
    newer = attempt and stored_attempt and attempt > stored_attempt
  end
  if older or stored_is_final and not newer then
    table.insert(too_late, i)
  else
    redis.call("SET", key, ARGV[i + 2], "EX", ARGV[1])
    redis.call("PUBLISH", key, ARGV[i + 2])
  end
end
return too_late
"""
_SIGNATURES = sa.select(task_table.c.id, task_table.c.signature).where(
    task_table.c.id.in_(sa.bindparam("task_ids", expanding=True))
)
_previous = task_table.alias()
_NEXT_STEPS = sa.select(task_table.c.id).where(
    _previous.c.id.in_(sa.bindparam("task_ids", expanding=True)),
    task_table.c.root_id == _previous.c.root_id,
    task_table.c.position == _previous.c.position + 1,
    UNFINISHED,
)


class _FencedWrite(Exception):
    """Raised if Redis has results that these must not replace, of the tasks `task_ids`; the others are stored."""

    def __init__(self, task_ids: Sequence[str]) -> None:
        super().__init__(", ".join(task_ids))
        self.task_ids = task_ids


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
        writer = Writer.of([task_id], request)
        self._store_state(writer, result, state, traceback, request, wait=wait, persist=persist, **kwargs)
        return result

    def _store_state(
        self,
        writer: Writer,
        result: Any,
        state: str,
        traceback: str | None,
        request: Context | None,
        *,
        wait: bool,
        persist: bool = True,
        **kwargs: Any,
    ) -> None:
        """Do what store_result() says, for one task or for several that no worker runs."""
        progress = None if state in (states.STARTED, states.RETRY, *states.FINISHED) else as_progress(state, result)
        if progress is not None and writer.claim is not None:
            if persist or not writer.claim.lease_valid:
                self._store_progress(writer.claim, progress)
        else:
            writer = writer._replace(task_ids=self._accepted_ids(writer, state))
        ended: Sequence[str] = ()
        try:
            self._store_in_redis(writer.task_ids, result, state, traceback, request, wait=wait, **kwargs)
        except _FencedWrite as fenced:
            if writer.claim is not None:
                raise ClaimLost(f"{writer.claim.task_id} was taken over; its {state} is dropped") from None
            ended = fenced.task_ids
            writer = writer._replace(task_ids=[each for each in writer.task_ids if each not in ended])
        if progress is None and state != states.STARTED:
            self._store_in_row(writer, result, state, traceback, request)
        elif writer.claim is not None:
            self._announce_running(writer.claim, progress)
        for task_id in ended:  # last, since an error of Redis must not keep the others out of their rows
            self.copy_result(task_id)

    def _store_result(
        self,
        task_id: str,
        result: Any,
        state: str,
        traceback: str | None = None,
        request: Any = None,
        task_ids: Sequence[str] = (),
        **kwargs: Any,
    ) -> Any:
        """As Celery's, in one round trip that is atomic, and fenced by the number of the attempt.

        Stores the same for all of `task_ids`, if they are given.
        """
        if _has_no_row(task_id, request):
            return super()._store_result(task_id, result, state, traceback, request, **kwargs)
        task_ids = task_ids or [task_id]
        claim = Writer.of(task_ids, request).claim
        attempt = claim.attempt if claim else None
        meta = self._get_result_meta(result=result, state=state, traceback=traceback, request=request)
        encoded = [self.encode(meta | {"task_id": each, "attempt": attempt}) for each in task_ids]
        expires = self.failure_expires if state == states.FAILURE else self.expires
        keys = [self.get_key_for_task(each) for each in task_ids]
        if too_late := self._store(keys=keys, args=[int(expires), attempt or "", *encoded]):
            raise _FencedWrite([task_ids[number - 1] for number in too_late])
        return result

    # Called by the engine

    def end(self, task_ids: Sequence[str], error: Exception, request: Context | None = None) -> None:
        """End tasks that no worker runs: REVOKED if `error` says that they were cancelled, else FAILURE.

        Takes a few statements for all whose users have the same language. Raises BackendStoreError or
        redis.exceptions.RedisError if Redis is unavailable, and DatabaseUnavailable; what is stored until then remains.
        """
        state = states.REVOKED if isinstance(error, TaskRevokedError) else states.FAILURE
        for same_locale in self._by_locale(task_ids, request).values():
            self._store_state(Writer.of(same_locale, request), error, state, None, request, wait=False)

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
        writer = Writer.of([task_id], request)
        self._store_in_row(writer, meta["result"], meta["status"], meta.get("traceback"), request)
        return True

    # The steps of store_result() and end()

    def _accepted_ids(self, writer: Writer, state: str) -> Sequence[str]:
        """Return the tasks whose rows would accept `state`: of others, Redis does not store it.

        A live lease needs no query. Raises ClaimLost if the claim of the writer is no longer valid.
        """
        if writer.claim is not None and (writer.claim.lease_valid or state == states.STARTED):
            return writer.task_ids  # STARTED is stored right after the claim
        names = describe_ids(writer.task_ids)
        with LogDatabaseErrors(logger, "%s of %s is stored in Redis without a check of its row", state, names):
            return accepted_ids(self.app.executor, writer)
        return writer.task_ids

    def _store_progress(self, claim: Claim, meta: dict[str, Any]) -> None:
        with LogDatabaseErrors(logger, "progress of %s is not in its row", claim.task_id):
            store_progress(self.app.executor, claim, meta, lease=self.app.flask_app.config["TASK_LEASE"])

    @cached_property
    def _store(self) -> Script:
        script: Script = self.client.register_script(_STORE)
        return script

    def _store_in_redis(
        self, task_ids: Sequence[str], result: Any, state: str, *details: Any, wait: bool = True, **kwargs: Any
    ) -> None:
        """Store a state by Celery's own means; one that is not terminal is dropped while Redis is unavailable."""
        if not task_ids:
            return
        # An option of Celery's store_result(), which otherwise retries as result_backend_always_retry says.
        retries = {} if wait and state in states.FINISHED else {"max_retries": 0}
        try:
            super().store_result(task_ids[0], result, state, *details, task_ids=task_ids, **retries, **kwargs)
        except BackendStoreError:
            if state in states.FINISHED:
                raise
            logger.warning("Redis is unavailable; %s of %s is not stored there", state, task_ids[0])

    def _store_in_row(
        self, writer: Writer, result: Any, state: str, traceback: str | None, request: Context | None
    ) -> None:
        """Store RETRY or a terminal state in the row, publish or end the next step, and announce the state."""
        if not writer.task_ids:
            return
        names, steps = describe_ids(writer.task_ids), list[StoredStep]()
        if writer.claim is not None:
            # Give up the lease: later writes of this run are checked in the row.
            writer.claim.valid_until, writer.claim.ended = 0.0, True
        with LogDatabaseErrors(logger, "%s of %s is stored only in part; reconcile does the rest", state, names):
            try:
                steps = self._update_row_patiently(writer, result, state, traceback, request)
            except (StatementError, *VALUE_ERRORS) as error:
                if not is_value_error(error):
                    raise
                logger.exception("%s of %s contains a value that the database cannot store: it fails", state, names)
                result, state = error, states.FAILURE
                steps = self._update_row(writer, result, state, None, request)
            self._advance_chain(steps, writer.claim, result, state, traceback)
        for step in steps:  # whatever has failed: these rows are committed
            self._announce(
                TaskChange(step.id, step.root_id, step.position, step.user_id, state, None, step.updated_at, step.name)
            )

    def _update_row_patiently(self, writer: Writer, result: Any, state: str, *details: Any) -> list[StoredStep]:
        """As _update_row(); a retry of this run waits for the database: its signature is stored nowhere else."""
        while True:
            try:
                return self._update_row(writer, result, state, *details)
            except DatabaseUnavailable as error:
                if writer.claim is None or state != states.RETRY:
                    raise
                task_id = writer.claim.task_id
                logger.warning("the database is unavailable (%s); the retry of %s waits for it", error.orig, task_id)
                time.sleep(OUTAGE_PAUSE)

    def _update_row(
        self, writer: Writer, result: Any, state: str, traceback: str | None, request: Context | None
    ) -> list[StoredStep]:
        """Store a state in the rows; an error is a sentence in the language of the users, who all have the same."""
        executor = self.app.executor
        if state == states.SUCCESS:
            return store_success(executor, writer, result)
        [locale] = self._by_locale(writer.task_ids[:1], request)
        with self.app.flask_app.app_context(), force_locale(locale):
            sentence = user_message(result)
        if state == states.RETRY:
            return store_retry(executor, writer, sentence, traceback)
        if state == states.REVOKED:
            return store_revoked(executor, writer, sentence, traceback)
        return store_failure(executor, writer, result, sentence, "" if isinstance(result, UserError) else traceback)

    def _advance_chain(
        self, steps: Sequence[StoredStep], claim: Claim | None, result: Any, state: str, traceback: str | None
    ) -> None:
        """Publish the next step, or a retry without a pause; end the next steps after a failure or a cancellation.

        Celery itself ends them only if the request has the rest of the chain, and never after a cancellation.
        """
        if not steps:
            return
        if state == states.SUCCESS:
            if claim is not None and claim.next_steps:
                publish(self.app.executor, claim.next_steps[::-1], result)
        elif state == states.RETRY:
            if claim is not None and claim.retry is not None and claim.retry_pause <= 0:
                publish(self.app.executor, [claim.retry, *claim.next_steps[::-1]])
        elif state in states.FINISHED:
            found = self.app.executor.execute(_NEXT_STEPS, task_ids=[step.id for step in steps])
            if next_ids := [task_id for (task_id,) in found]:
                try:
                    self._store_state(Writer.of(next_ids, None), result, state, traceback, None, wait=False)
                except REDIS_UNAVAILABLE as error:
                    logger.warning("Redis is unavailable (%s); reconcile ends %s", error, describe_ids(next_ids))

    def _by_locale(self, task_ids: Sequence[str], request: Context | None) -> dict[str, Sequence[str]]:
        """Return the tasks grouped by the locale of their users. Raises DatabaseUnavailable."""
        if locale := getattr(request, "locale", None):
            return {locale: task_ids}
        # Ended by a process that did not get the messages.
        signatures = {row.id: row.signature for row in self.app.executor.execute(_SIGNATURES, task_ids=task_ids)}
        grouped: dict[str, list[str]] = defaultdict(list)
        for task_id in task_ids:
            headers = signatures.get(task_id, {}).get("options", {}).get("headers") or {}
            grouped[headers.get("locale") or self.app.flask_app.config["BABEL_DEFAULT_LOCALE"]].append(task_id)
        return dict(grouped)

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
