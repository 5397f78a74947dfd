"""Scheduler of `celery beat`: RedBeat that survives a Redis that is unavailable or has lost its data."""

from __future__ import annotations

import logging
from typing import Any

from redbeat.schedulers import LUA_EXTEND_TO_SCRIPT, RedBeatScheduler, get_redis
from redis.exceptions import LockError, RedisError

from microblog.taskqueue.queues import record_data_since

logger = logging.getLogger(__name__)

PAUSE = 1.0  # seconds between two attempts to begin again


class Scheduler(RedBeatScheduler):
    """As RedBeat's. Of several, the one that holds the lock in Redis schedules; the others wait for it."""

    lock: Any = None
    _stored = False
    _ticking = False
    _told_to_end = False

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Send what is due; returns the seconds until the next look. A fault of Redis costs ticks, not the program.

        Raises SystemExit if beat was told to end meanwhile: the one that Celery's signal handler raises is lost where
        it comes in the middle of publishing, which takes it for a fault of the connection.
        """
        self._ticking = True
        try:
            return self._tick(*args, **kwargs)
        finally:
            self._ticking = False
            if self._told_to_end:
                raise SystemExit

    def close(self) -> None:
        """Give the lock back, if Redis is there to take it. In the middle of a tick that waits until it is over."""
        if self._ticking:
            self._told_to_end = True
            return
        try:
            super().close()
        except (LockError, RedisError):
            self.lock = None
            logger.warning("Redis is away; the lock of the schedule runs out by itself")

    def _tick(self, *args: Any, **kwargs: Any) -> float:
        try:
            if self.lock is None and not self._begin_again():
                return PAUSE
            if not self._stored:  # Redis may have forgotten it while this beat waited for the lock
                self.setup_schedule()
                record_data_since(get_redis(self.app))
                self._stored = True
            wait: float = super().tick(*args, **kwargs)
        except (LockError, RedisError) as error:
            logger.warning("the schedule waits for Redis (%s)", error)
            self.lock, self._stored = None, False
            return PAUSE
        return wait

    def _begin_again(self) -> bool:
        """Take the lock; returns whether it was free."""
        client = get_redis(self.app)
        lock = client.lock(self.lock_key, timeout=self.lock_timeout)
        if not lock.acquire(blocking=False):
            return False
        lock.lua_extend = client.register_script(LUA_EXTEND_TO_SCRIPT)  # extends to a time, not by one
        self.lock = lock
        logger.info("the schedule goes on")
        return True
