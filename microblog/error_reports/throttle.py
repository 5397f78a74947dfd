"""Throttle: one mail a minute for equal errors; the others are counted in Redis, across all processes."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict

from redis.exceptions import RedisError

from microblog.extensions import redis_client

PERIOD = 60  # seconds
COUNT_LIFETIME = 24 * 3600  # seconds that a count is stored after the last error
MAX_LOCAL_KINDS = 1000  # kinds of errors that a process counts while Redis is unavailable

# Returns -1 for an error within the period of an equal one, otherwise the number suppressed since the last admitted.
_ACQUIRE = """
if redis.call("SET", KEYS[1], 1, "NX", "EX", ARGV[1]) then
  local suppressed = redis.call("GET", KEYS[2])
  redis.call("DEL", KEYS[2])
  return tonumber(suppressed or 0)
end
redis.call("INCR", KEYS[2])
redis.call("EXPIRE", KEYS[2], ARGV[2])
return -1
"""
# Returns 1 for the mail that owns the period and may also be retried, otherwise 0.
_ACQUIRE_MAIL = """
local by = redis.call("GET", KEYS[1])
if by and by ~= ARGV[1] then
  redis.call("INCRBY", KEYS[2], ARGV[3])
  redis.call("EXPIRE", KEYS[2], ARGV[4])
  return 0
end
redis.call("SET", KEYS[1], ARGV[1], "EX", ARGV[2])
return 1
"""


def acquire(kind: str) -> int | None:
    """Return the number of equal errors suppressed since the last mail, if another mail is due, otherwise None.

    While Redis is unavailable, each process counts separately.
    """
    keys = _keys(kind)
    try:
        suppressed = int(redis_client.connection.eval(_ACQUIRE, 2, *keys, PERIOD, COUNT_LIFETIME))
    except RedisError:
        return _acquire_locally(keys[0])
    return None if suppressed < 0 else suppressed


def acquire_mail(kind: str, report: str, suppressed: int) -> bool:
    """Return whether the mail about `report` (a text that identifies it) may be sent: no equal one was sent recently.

    Otherwise it is never sent, and counts as suppressed together with the `suppressed` errors that it would have
    reported. acquire() does not ensure this: while Redis is unavailable, each process admits equal errors, and all of
    their mails are due once it is available. Raises redis.exceptions.RedisError.
    """
    mailed, counted = f"{_keys(kind)[0]}:by", _keys(kind)[1]
    arguments = (report, PERIOD, suppressed + 1, COUNT_LIFETIME)
    return bool(redis_client.connection.eval(_ACQUIRE_MAIL, 2, mailed, counted, *arguments))


def release(kind: str, suppressed: int) -> None:
    """Undo an acquire() without a report: the next equal error is admitted, and this one is counted as suppressed."""
    mark, count = _keys(kind)
    with _lock:
        _local_admissions.pop(mark, None)
    try:
        redis_client.connection.delete(mark)
        redis_client.connection.incrby(count, suppressed + 1)
        redis_client.connection.expire(count, COUNT_LIFETIME)
    except RedisError:
        return


_lock = threading.Lock()
# Time of the last admission, and the number suppressed since.
_local_admissions: OrderedDict[str, tuple[float, int]] = OrderedDict()


def _acquire_locally(mark: str) -> int | None:
    now = time.monotonic()
    with _lock:
        admitted_at, suppressed = _local_admissions.pop(mark, (now - PERIOD, 0))
        too_soon = now - admitted_at < PERIOD
        _local_admissions[mark] = (admitted_at, suppressed + 1) if too_soon else (now, 0)
        while len(_local_admissions) > MAX_LOCAL_KINDS:
            _local_admissions.popitem(last=False)
    return None if too_soon else suppressed


def _keys(kind: str) -> tuple[str, str]:
    digest = hashlib.sha256(kind.encode("utf-8", "replace")).hexdigest()
    key = redis_client.connection.key(f"error:{{{digest}}}")
    return f"{key}:mailed", f"{key}:suppressed"
