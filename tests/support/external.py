"""Programs that tests need and a machine may lack: such tests are then left out, and the summary says so."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from microblog.development import redis_server
from microblog.development.process_manager import Failure
from tests.support.servers import postgres_binaries

CHROMIUM_NAMES = (
    # The first is the same browser without windows: it leaves more of the machine to the other processes.
    *("chromium-headless-shell", "chromium", "chromium-browser"),
    *("google-chrome", "google-chrome-stable", "chrome"),
)


@dataclass(frozen=True)
class ExternalProgram:
    """A program: its `name`, how to `find` its path, how to `install` it (a sentence), what prints its version."""

    name: str
    find: Callable[[], str | None]
    install: str
    version_option: str = "--version"

    def require(self) -> str:
        """Return its path. Skips the test if it is not installed, or fails it in CI, where nothing may be left out."""
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
        """Return its name and version, or that it is not installed."""
        path = self.find()
        if path is None:
            return f"{self.name}: not installed"
        printed = subprocess.run([path, self.version_option], capture_output=True, text=True, check=False).stdout
        number = re.search(r"\d+(\.\d+)+", printed)
        return f"{self.name} {number[0]}" if number else self.name


def _redis() -> str | None:
    try:
        return redis_server.binary()
    except Failure:
        return None


def _postgres() -> str | None:
    folder = postgres_binaries()
    return folder and f"{folder}/postgres"


def _chromium() -> str | None:
    return next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)


REDIS = ExternalProgram("Redis", _redis, "On Debian: apt install redis-server")
POSTGRESQL = ExternalProgram("PostgreSQL", _postgres, "On Debian: apt install postgresql")
CHROMIUM = ExternalProgram("Chromium", _chromium, "On Debian: apt install chromium-headless-shell; Chrome will do, too")
TMUX = ExternalProgram("tmux", lambda: shutil.which("tmux"), "On Debian: apt install tmux", "-V")
PROMTOOL = ExternalProgram("promtool", lambda: shutil.which("promtool"), "On Debian: apt install prometheus")
ALL = (REDIS, POSTGRESQL, CHROMIUM, TMUX, PROMTOOL)
