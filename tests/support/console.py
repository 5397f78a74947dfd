"""Commands as an operator runs them: in this process, as a process of their own, on a terminal."""

from __future__ import annotations

import os
import pty
import select
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from click.testing import Result
from flask import Flask

from microblog.extensions import db
from tests.support.programs import Program

Run = Callable[..., Result]


def commands(app: Flask, group: str) -> Run:
    """Runs ``flask GROUP …`` in this process, with what it prints on stdout and on stderr apart.

    `typed` is what the operator answers.
    """
    runner = app.test_cli_runner()

    def run(*arguments: str, typed: str = "") -> Result:
        result: Result = runner.invoke(args=[group, *arguments], input=typed)
        db.session.rollback()
        return result

    return run


def flask_tasks(*arguments: str) -> list[str]:
    """The command, for programs.run()."""
    return ["flask", "--app", "microblog:create_app", "tasks", *arguments]


def from_nothing(command: Sequence[str]) -> list[str]:
    """The same command for a shell, or for subprocess."""
    return [sys.executable, "-m", *command]


def on_a_terminal(command: Sequence[str], environment: dict[str, str]) -> str:
    """What `command` prints on a terminal that is rather narrow."""
    ours, theirs = pty.openpty()
    settings = environment | {"TERM": "xterm", "COLUMNS": "80"}
    process = Program(command, settings, stdout=Path(os.ttyname(theirs)), stderr=Path(os.devnull))
    printed, ended = b"", False
    while not ended:
        ended = process.poll() is not None
        while select.select([ours], [], [], 0.02)[0]:
            printed += os.read(ours, 4096)
    os.close(ours)
    os.close(theirs)
    assert process.returncode == 0
    return printed.decode()
