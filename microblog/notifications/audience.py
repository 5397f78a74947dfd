"""How many pages listen, in all web processes: each tells Redis of its own every few seconds while it has any."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable

import redis

PROCESSES = "microblog:listening"  # a set: the web processes that have told of listeners
LISTENERS = "microblog:listening:{}"  # by process; gone when it has not told for TOLD_FOR seconds
TELL_EVERY = 5.0  # seconds
TOLD_FOR = 30  # seconds; a process that was killed is counted until then


class Audience:
    """What one web process tells of its listeners, which `count` counts."""

    def __init__(self, client: redis.Redis, count: Callable[[], int]) -> None:
        self._client = client
        self._count = count
        self._told_at = -TELL_EVERY

    def tell(self, *, at_once: bool = False) -> None:
        """Tell how many there are, `at_once` or if it is time to. Raises redis.exceptions.RedisError."""
        if not at_once and time.monotonic() - self._told_at < TELL_EVERY:
            return
        process = f"{socket.gethostname()}:{os.getpid()}"
        with self._client.pipeline() as pipe:
            if listeners := self._count():
                pipe.sadd(PROCESSES, process)
                pipe.set(LISTENERS.format(process), listeners, ex=TOLD_FOR)
            else:
                pipe.srem(PROCESSES, process)
                pipe.delete(LISTENERS.format(process))
            pipe.execute()
        self._told_at = time.monotonic()


def listeners(client: redis.Redis) -> int:
    """How many pages listen, in all web processes together. Raises redis.exceptions.RedisError."""
    processes: set[str] = client.smembers(PROCESSES)  # type: ignore[assignment]
    told = {process: client.get(LISTENERS.format(process)) for process in processes}
    gone = [process for process, count in told.items() if count is None]
    if gone:
        client.srem(PROCESSES, *gone)
    return sum(int(str(count)) for count in told.values() if count is not None)
