"""Commands as an operator runs them: as a process, on a terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Sequence

from tests.support.services import ROOT


def flask_tasks(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "flask", "--app", "microblog:create_app", "tasks", *arguments]


def on_a_terminal(command: Sequence[str], environment: dict[str, str]) -> str:
    """What `command` prints on a terminal that is rather narrow."""
    ours, theirs = pty.openpty()
    settings = environment | {"TERM": "xterm", "COLUMNS": "80"}
    process = subprocess.Popen(command, cwd=ROOT, env=settings, stdout=theirs, stderr=subprocess.DEVNULL)
    os.close(theirs)
    printed = b""
    try:
        while chunk := os.read(ours, 4096):
            printed += chunk
    except OSError:  # how Linux says that nobody holds the other end any more
        pass
    os.close(ours)
    assert process.wait(60) == 0
    return printed.decode()
