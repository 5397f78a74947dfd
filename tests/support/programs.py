"""Console scripts in separate processes that start without importing everything again.

`celery` and `flask` spend most of their start-up time on imports. For each process of pytest a fork server imports the
modules once. A program is forked from it, with its own environment, session and output, and runs its console script.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import pkgutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["tests.support.preloaded"])


class Program:
    """A console script in a separate process and session, with the interface of subprocess.Popen."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], *, stdout: Path, stderr: Path | None = None
    ) -> None:
        self.command = list(command)
        outputs = (str(stdout), str(stderr or stdout))
        self._process = _forks.Process(target=_run_script, args=(self.command, dict(environment), *outputs))
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code as in Popen: None while the program runs, negative if a signal ended it."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Return the exit code, or None while the program runs."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the program to end and return its exit code.

        Raises subprocess.TimeoutExpired after `timeout` seconds.
        """
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.command, timeout or 0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal if the program is still running."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


def run(
    command: Sequence[str], environment: Mapping[str, str], *, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run a console script and return its exit code and captured output, like subprocess.run().

    Raises subprocess.TimeoutExpired after `timeout` seconds.
    """
    with tempfile.TemporaryDirectory() as folder:
        stdout, stderr = Path(folder, "stdout"), Path(folder, "stderr")
        program = Program(command, environment, stdout=stdout, stderr=stderr)
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
