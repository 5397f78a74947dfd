"""Operator commands, run in this process, in a separate process or in a terminal."""

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
from tests.support.programs import ScriptProcess

Run = Callable[..., Result]


def commands(app: Flask, group: str) -> Run:
    """Return a function that runs ``flask GROUP …`` in this process, with separate stdout and stderr.

    Its argument `typed` is the operator's input.
    """
    runner = app.test_cli_runner()

    def run(*arguments: str, typed: str = "") -> Result:
        result: Result = runner.invoke(args=[group, *arguments], input=typed)
        db.session.rollback()
        return result

    return run


def flask_tasks(*arguments: str) -> list[str]:
    """Return the command line of ``flask tasks …``, for programs.run()."""
    return ["flask", "--app", "microblog:create_app", "tasks", *arguments]


def as_python_module(command: Sequence[str]) -> list[str]:
    """Return the command as a call of the Python interpreter, for a shell or subprocess."""
    return [sys.executable, "-m", *command]


def run_in_terminal(command: Sequence[str], environment: dict[str, str]) -> str:
    """Return the output of `command` in a terminal with 80 columns."""
    controller, terminal = pty.openpty()
    settings = environment | {"TERM": "xterm", "COLUMNS": "80"}
    process = ScriptProcess(command, settings, stdout=Path(os.ttyname(terminal)), stderr=Path(os.devnull))
    output, ended = b"", False
    while not ended:
        ended = process.poll() is not None
        while select.select([controller], [], [], 0.02)[0]:
            output += os.read(controller, 4096)
    os.close(controller)
    os.close(terminal)
    assert process.poll() == 0
    return output.decode()
