"""Scheduler of `celery beat`: RedBeat that survives a Redis that is unavailable or has lost its data."""

from __future__ import annotations

import logging
from typing import Any

from redbeat.schedulers import LUA_EXTEND_TO_SCRIPT, RedBeatScheduler, get_redis
from redis.exceptions import LockError, RedisError

from microblog.taskqueue.queues import record_data_since

logger = logging.getLogger(__name__)

PAUSE = 1.0  # seconds between two attempts to take the lock


class Scheduler(RedBeatScheduler):
    """RedBeat's scheduler. Of several, only the holder of the lock in Redis sends tasks; the others wait for it."""

    lock: Any = None
    _stored = False
    _ticking = False
    _stop_requested = False

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Send due tasks; returns the seconds until the next tick. Errors of Redis delay ticks but do not end beat.

        Raises SystemExit if beat was stopped during the tick: the SystemExit of Celery's signal handler is lost if it
        is raised while a message is published, where it is treated as a connection error.
        """
        self._ticking = True
        try:
            return self._tick(*args, **kwargs)
        finally:
            self._ticking = False
            if self._stop_requested:
                raise SystemExit

    def close(self) -> None:
        """Release the lock if Redis is available. During a tick, the release is deferred until the tick has ended."""
        if self._ticking:
            self._stop_requested = True
            return
        try:
            super().close()
        except (LockError, RedisError):
            self.lock = None
            logger.warning("Redis is unavailable; the lock of the schedule expires by itself")

    def _tick(self, *args: Any, **kwargs: Any) -> float:
        try:
            if self.lock is None and not self._take_lock():
                return PAUSE
            if not self._stored:  # Redis may have lost it while this beat waited for the lock
                self.setup_schedule()
                record_data_since(get_redis(self.app))
                self._stored = True
            wait: float = super().tick(*args, **kwargs)
        except (LockError, RedisError) as error:
            logger.warning("the schedule waits for Redis (%s)", error)
            self.lock, self._stored = None, False
            return PAUSE
        return wait

    def _take_lock(self) -> bool:
        """Take the lock; returns whether it was free."""
        client = get_redis(self.app)
        lock = client.lock(self.lock_key, timeout=self.lock_timeout)
        if not lock.acquire(blocking=False):
            return False
        lock.lua_extend = client.register_script(LUA_EXTEND_TO_SCRIPT)  # extends the lock to a time, not by a duration
        self.lock = lock
        logger.info("the schedule continues")
        return True
