"""Scheduler of `celery beat`: RedBeat that survives a Redis that is unavailable or has lost data."""

from __future__ import annotations

import logging
from typing import Any

from redbeat.schedulers import LUA_EXTEND_TO_SCRIPT, RedBeatScheduler, get_redis
from redis.exceptions import LockError, RedisError

logger = logging.getLogger(__name__)

PAUSE = 1.0  # seconds between two attempts to take the lock


class Scheduler(RedBeatScheduler):
    """RedBeat's scheduler. Of several, only the holder of the lock in Redis sends tasks; the others wait for it."""

    lock: Any = None
    _ticking = False
    _stop_requested = False

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, "lazy": True})  # the first tick stores the schedule

    def setup_schedule(self) -> None:
        """Make the stored schedule equal to that of the settings: Redis may have lost, evicted or damaged a part of it.

        Raises redis.exceptions.RedisError.
        """
        client, conf = get_redis(self.app), self.app.redbeat_conf
        entries = {entry.key: entry for entry in map(self._maybe_entry, conf.schedule, conf.schedule.values())}
        if client.type(conf.schedule_key) != "zset":
            client.delete(conf.schedule_key)
        for key in client.zrange(conf.schedule_key, 0, -1):
            if key not in entries:
                if key.startswith(conf.key_prefix):
                    client.delete(key)
                client.zrem(conf.schedule_key, key)
                logger.info("%s is no longer in the schedule; its entry is deleted", key)
        missing = [entry for entry in entries.values() if not self._is_stored(entry)]
        for entry in missing:
            client.delete(entry.key)
            entry.save()
        if 0 < len(missing) == len(entries):
            logger.info("the schedule is stored in Redis, which had none")
        elif missing:
            names = ", ".join(entry.name for entry in missing)
            logger.info("stored entries of the schedule were missing or different, and are repaired: %s", names)

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
            self.setup_schedule()
            wait: float = super().tick(*args, **kwargs)
        except (LockError, RedisError) as error:
            logger.warning("the schedule waits for Redis (%s)", error)
            self.lock = None
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

    def _is_stored(self, entry: Any) -> bool:
        """Return whether Redis has `entry` as it is in the settings, and it is due within its interval."""
        client, now = get_redis(self.app), self.app.now()
        try:
            stored = self.Entry.from_key(entry.key, app=self.app)
            ran_in_past = stored.last_run_at is None or stored.last_run_at <= now
        except RedisError as error:
            if "WRONGTYPE" not in str(error):
                raise
            return False
        except Exception:  # it is missing or malformed
            return False
        due_at = client.zscore(self.app.redbeat_conf.schedule_key, entry.key)
        latest = (now + entry.schedule.run_every).timestamp()
        in_time = due_at is not None and 0 <= due_at <= latest
        return ran_in_past and in_time and stored.enabled and bool(entry.editable_fields_equal(stored))
