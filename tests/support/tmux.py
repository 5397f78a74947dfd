"""A terminal that a test can type into and read: tmux, with a server of its own."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.support.programs import ROOT
from tests.support.services import PATIENCE


class Tmux:
    """A shell in a terminal of `columns` times `lines`, with `environment` and nothing else."""

    def __init__(self, environment: Mapping[str, str], columns: int = 80, lines: int = 24) -> None:
        self._folder = tempfile.mkdtemp(prefix="tmux-")  # short, as the path of a socket has to be
        self._environment = {**environment, "LANG": "C.UTF-8", "PS1": "$ ", "TERM": "xterm-256color"}
        self._tmux("new-session", "-d", "-x", str(columns), "-y", str(lines), "sh")

    def stop(self) -> None:
        """End it, with all that runs in it."""
        self._tmux("kill-server", check=False)
        shutil.rmtree(self._folder, ignore_errors=True)

    def run(self, command: str) -> None:
        """Type a command."""
        self._tmux("send-keys", "-l", command)
        self.press("Enter")

    def press(self, *keys: str) -> None:
        """Press keys: characters, or tmux's names of keys."""
        self._tmux("send-keys", *keys)

    def text(self) -> str:
        """What is on the screen."""
        return self._tmux("capture-pane", "-p")

    def line_with(self, text: str) -> str:
        """The first line on the screen that has `text`; empty if there is none."""
        return next((line for line in self.text().splitlines() if text in line), "")

    def resize(self, columns: int, lines: int) -> None:
        self._tmux("resize-window", "-x", str(columns), "-y", str(lines))

    def ask(self, variable: str) -> str:
        """One of tmux's variables, such as ``alternate_on``."""
        return self._tmux("display-message", "-p", f"#{{{variable}}}").strip()

    def _tmux(self, *arguments: str, check: bool = True) -> str:
        command = ["tmux", "-u", "-S", str(Path(self._folder) / "socket"), "-f", "/dev/null", *arguments]
        done = subprocess.run(
            command, env=self._environment, cwd=ROOT, capture_output=True, text=True, check=check, timeout=PATIENCE
        )
        return done.stdout
