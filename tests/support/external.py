"""External programs that some tests need. These tests are skipped without them, and the summary reports it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from microblog.development.process_manager import Failure
from microblog.development.servers import redis_binary
from tests.support.servers import postgres_binaries

CHROMIUM_NAMES = (
    # The headless shell comes first: it is the same browser without windows and uses fewer resources.
    *("chromium-headless-shell", "chromium", "chromium-browser"),
    *("google-chrome", "google-chrome-stable", "chrome"),
)


@dataclass(frozen=True)
class ExternalProgram:
    """A program: `name`, a function to `find` its path, a sentence on how to `install` it, and its version option."""

    name: str
    find: Callable[[], str | None]
    install: str
    version_option: str = "--version"

    def require(self) -> str:
        """Return its path. If it is not installed, skip the test, or fail it in CI, where no test may be skipped."""
        path = self.find()
        if path is not None:
            return path
        if os.environ.get("CI"):
            pytest.fail(self.reason)
        pytest.skip(self.reason)

    @property
    def reason(self) -> str:
        """The reason for skipping tests that need it, with the command that installs it."""
        return f"{self.name} is not installed. {self.install}"

    def version(self) -> str:
        """Return its name and version, or a note that it is not installed."""
        path = self.find()
        if path is None:
            return f"{self.name}: not installed"
        output = subprocess.run([path, self.version_option], capture_output=True, text=True, check=False).stdout
        number = re.search(r"\d+(\.\d+)+", output)
        return f"{self.name} {number[0]}" if number else self.name


def _redis() -> str | None:
    try:
        return redis_binary()
    except Failure:
        return None


def _redis_with_tls() -> str | None:
    """Return the path of redis-server if it was built with TLS: it then knows the option, and has no port to use."""
    path = _redis()
    options = ["--port", "0", "--tls-port", "0"]
    outcome = path and subprocess.run([path, *options], capture_output=True, text=True, check=False)
    return path if outcome and "Bad directive" not in outcome.stderr + outcome.stdout else None


def _postgres() -> str | None:
    folder = postgres_binaries()
    return folder and f"{folder}/postgres"


def _chromium() -> str | None:
    return next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)


REDIS = ExternalProgram("Redis", _redis, "On Debian: apt install redis-server")
REDIS_WITH_TLS = ExternalProgram("Redis with TLS", _redis_with_tls, "On Debian: apt install redis-server")
POSTGRESQL = ExternalProgram("PostgreSQL", _postgres, "On Debian: apt install postgresql")
PGBOUNCER = ExternalProgram(
    "PgBouncer",
    lambda: shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin"),
    "On Debian: apt install pgbouncer",
)
CHROMIUM = ExternalProgram(
    "Chromium", _chromium, "On Debian: apt install chromium-headless-shell; Chrome works as well"
)
TMUX = ExternalProgram("tmux", lambda: shutil.which("tmux"), "On Debian: apt install tmux", "-V")
PROMTOOL = ExternalProgram("promtool", lambda: shutil.which("promtool"), "On Debian: apt install prometheus")
FAKETIME = ExternalProgram("faketime", lambda: shutil.which("faketime"), "On Debian: apt install faketime")
ALL = (REDIS, REDIS_WITH_TLS, POSTGRESQL, PGBOUNCER, CHROMIUM, TMUX, PROMTOOL, FAKETIME)


def shifted_clock(offset: str) -> dict[str, str]:
    """Return the environment in which the clock of a new program differs by `offset`, such as "+60s" or "-1h".

    The program is not started by faketime, which would not pass signals on to it.
    """
    command = [FAKETIME.require(), "-f", offset, "printenv", "LD_PRELOAD"]
    library = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return {
        "LD_PRELOAD": library,
        "FAKETIME": offset,
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",  # since not every function that waits by it is replaced
        "NO_FAKE_STAT": "1",  # since compiled modules contain the times of their sources
        "PYTHONPATH": str(Path(__file__).parent / "clock"),
    }
