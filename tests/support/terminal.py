"""A terminal that tests control and read: tmux with a separate server."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.support.console import as_python_module, flask_tasks
from tests.support.programs import ROOT
from tests.support.servers import TIMEOUT, wait_for


class Tmux:
    """A shell in a terminal of `columns` × `lines` that has only the variables of `environment`."""

    def __init__(self, environment: Mapping[str, str], columns: int = 80, lines: int = 24) -> None:
        self._folder = tempfile.mkdtemp(prefix="tmux-")  # the path of a socket must be short
        self._environment = {**environment, "LANG": "C.UTF-8", "PS1": "$ ", "TERM": "xterm-256color"}
        self._tmux("new-session", "-d", "-x", str(columns), "-y", str(lines), "sh")

    def stop(self) -> None:
        """Stop the tmux server with all programs in it."""
        self._tmux("kill-server", check=False)
        shutil.rmtree(self._folder, ignore_errors=True)

    def run(self, command: str) -> None:
        """Type a command and press Enter."""
        self._tmux("send-keys", "-l", command)
        self.press("Enter")

    def press(self, *keys: str) -> None:
        """Press keys, given as characters or as tmux's key names."""
        self._tmux("send-keys", *keys)

    def text(self) -> str:
        """Return the text on the screen."""
        return self._tmux("capture-pane", "-p")

    def line_with(self, text: str) -> str:
        """Return the first line on the screen that contains `text`, or an empty string."""
        return next((line for line in self.text().splitlines() if text in line), "")

    def resize(self, columns: int, lines: int) -> None:
        self._tmux("resize-window", "-x", str(columns), "-y", str(lines))

    def ask(self, variable: str) -> str:
        """Return the value of a tmux variable, such as ``alternate_on``."""
        return self._tmux("display-message", "-p", f"#{{{variable}}}").strip()

    def _tmux(self, *arguments: str, check: bool = True) -> str:
        command = ["tmux", "-u", "-S", str(Path(self._folder) / "socket"), "-f", "/dev/null", *arguments]
        process = subprocess.run(
            command, env=self._environment, cwd=ROOT, capture_output=True, text=True, check=check, timeout=TIMEOUT
        )
        return process.stdout


WATCH = shlex.join(as_python_module(flask_tasks("watch")))


def shows(terminal: Tmux, text: str, timeout: float = TIMEOUT) -> str:
    """Wait until `text` is on the screen and return its line."""
    try:
        return wait_for(lambda: terminal.line_with(text), timeout)
    except AssertionError:
        raise AssertionError(f"{text!r} did not appear on the screen:\n{terminal.text()}") from None


def wait_until_gone(terminal: Tmux, text: str) -> None:
    wait_for(lambda: not terminal.line_with(text), what=f"{text!r} disappears from the screen")


def exit_code(terminal: Tmux) -> int:
    """Return the exit code that ``; echo "exit code: $?"``, typed after a command, has printed."""
    found = wait_for(lambda: re.search(r"^exit code: (\d+)$", terminal.text(), re.M), what="an exit code")
    return int(found[1])
