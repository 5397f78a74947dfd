"""Throttle: one mail a minute for equal errors; the others are counted in Redis, for all processes."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict

from redis.exceptions import RedisError

from microblog.extensions import redis_client

PERIOD = 60  # seconds
COUNTED_FOR = 24 * 3600  # seconds that a count is kept after the last error
REMEMBERED = 1000  # kinds of errors that a process remembers while Redis is away

# Returns -1 for an error that comes too soon, else how many came too soon since the last that did not.
_ADMIT = """
if redis.call("SET", KEYS[1], 1, "NX", "EX", ARGV[1]) then
  local suppressed = redis.call("GET", KEYS[2])
  redis.call("DEL", KEYS[2])
  return tonumber(suppressed or 0)
end
redis.call("INCR", KEYS[2])
redis.call("EXPIRE", KEYS[2], ARGV[2])
return -1
"""
# Returns 1 for the mail that has the period for itself, and may be tried again; else 0.
_ADMIT_MAIL = """
local by = redis.call("GET", KEYS[1])
if by and by ~= ARGV[1] then
  redis.call("INCRBY", KEYS[2], ARGV[3])
  redis.call("EXPIRE", KEYS[2], ARGV[4])
  return 0
end
redis.call("SET", KEYS[1], ARGV[1], "EX", ARGV[2])
return 1
"""


def admit(kind: str) -> int | None:
    """Return the number of equal errors suppressed since the last mail, if another mail is due; else None.

    While Redis is away each process counts for itself.
    """
    keys = _keys(kind)
    try:
        suppressed = int(redis_client.connection.eval(_ADMIT, 2, *keys, PERIOD, COUNTED_FOR))
    except RedisError:
        return _admit_here(keys[0])
    return None if suppressed < 0 else suppressed


def admit_mail(kind: str, report: str, suppressed: int) -> bool:
    """Return whether the mail about `report` (any text that names it) may go now: there was none about such an error.

    Else it never goes, and counts as suppressed, with the `suppressed` that it would have told of. This holds where
    admit() cannot: reports of many processes, made while Redis was away, all go once it is back. Raises
    redis.exceptions.RedisError.
    """
    mailed, counted = f"{_keys(kind)[0]}:by", _keys(kind)[1]
    arguments = (report, PERIOD, suppressed + 1, COUNTED_FOR)
    return bool(redis_client.connection.eval(_ADMIT_MAIL, 2, mailed, counted, *arguments))


def take_back(kind: str, suppressed: int) -> None:
    """Undo an admit() of which nothing came: the next such error is admitted, and this one counted as suppressed."""
    mark, count = _keys(kind)
    with _lock:
        _here.pop(mark, None)
    try:
        redis_client.connection.delete(mark)
        redis_client.connection.incrby(count, suppressed + 1)
        redis_client.connection.expire(count, COUNTED_FOR)
    except RedisError:
        return


_lock = threading.Lock()
_here: OrderedDict[str, tuple[float, int]] = OrderedDict()  # when it was admitted last, and how many since were not


def _admit_here(mark: str) -> int | None:
    now = time.monotonic()
    with _lock:
        admitted_at, suppressed = _here.pop(mark, (now - PERIOD, 0))
        too_soon = now - admitted_at < PERIOD
        _here[mark] = (admitted_at, suppressed + 1) if too_soon else (now, 0)
        while len(_here) > REMEMBERED:
            _here.popitem(last=False)
    return None if too_soon else suppressed


def _keys(kind: str) -> tuple[str, str]:
    digest = hashlib.sha256(kind.encode("utf-8", "replace")).hexdigest()
    return f"microblog:error:{{{digest}}}:mailed", f"microblog:error:{{{digest}}}:suppressed"
