"""Console scripts in separate processes that start without importing everything again.

`celery` and `flask` spend most of their start-up time on imports. For each process of pytest a fork server imports the
modules once. A program is forked from it, with its own environment, session and output, and runs its console script.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import pkgutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path

from config import ROOT as ROOT
from microblog.development.process_manager import ManagedProcess

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["tests.support.preloaded"])


class ScriptProcess(ManagedProcess):
    """A console script, in a process that is forked from the fork server."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], *, stdout: Path, stderr: Path | None = None
    ) -> None:
        self._outputs = (str(stdout), str(stderr or stdout))
        for path in self._outputs:  # a test may read its output before the process has begun
            Path(path).touch(mode=0o600)
        super().__init__(command, environment, stdout=stdout)

    def poll(self) -> int | None:
        return self._fork.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._fork.join(timeout)
        if (code := self.poll()) is None:
            raise subprocess.TimeoutExpired(self.command, timeout or 0)
        return code

    def _spawn(self) -> int:
        self._fork = _forks.Process(target=_run_script, args=(self.command, dict(self._environment), *self._outputs))
        self._fork.start()
        assert self._fork.pid is not None
        return self._fork.pid


def all_run(programs: Sequence[ManagedProcess]) -> bool:
    """Return True. Raises AssertionError if a program has ended."""
    assert [program.poll() for program in programs] == [None] * len(programs)
    return True


def run(
    command: Sequence[str], environment: Mapping[str, str], *, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run a console script and return its exit code and captured output, like subprocess.run().

    Raises subprocess.TimeoutExpired after `timeout` seconds.
    """
    with tempfile.TemporaryDirectory() as folder:
        stdout, stderr = Path(folder, "stdout"), Path(folder, "stderr")
        program = ScriptProcess(command, environment, stdout=stdout, stderr=stderr)
        try:
            code = program.wait(timeout)
        finally:
            program.kill()
        return subprocess.CompletedProcess(program.command, code, stdout.read_text(), stderr.read_text())


def _run_script(command: list[str], environment: dict[str, str], stdout: str, stderr: str) -> None:
    os.setsid()
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(environment)
    for path, number in ((stdout, 1), (stderr, 2)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(file, number)
        os.close(file)
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115 - stays open while the program runs
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    sys.argv = command
    [script] = entry_points(group="console_scripts", name=command[0])
    sys.exit(script.load()())


def import_all(package: str) -> None:
    """Import a package with all its modules."""
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
