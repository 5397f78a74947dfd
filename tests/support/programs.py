"""Python programs as processes of their own that need not import everything anew.

`celery` and `flask` spend most of their start importing. Here a server process imports all of it once for each process
of pytest; a program is then forked from it, with its own environment, session and output, and runs its console script.
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
    """A console script in a process of its own, which leads a session; used like subprocess.Popen."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], *, stdout: Path, stderr: Path | None = None
    ) -> None:
        self.command = list(command)
        outputs = (str(stdout), str(stderr or stdout))
        self._process = _forks.Process(target=_become, args=(self.command, dict(environment), *outputs))
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        """As Popen's: None while it runs, negative for a signal."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Its exit code, or None while it runs."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, once it has ended. Raises subprocess.TimeoutExpired after `timeout` seconds."""
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.command, timeout or 0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Tell it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)


def run(
    command: Sequence[str], environment: Mapping[str, str], *, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run a console script to its end, as subprocess.run() would: with its exit code and what it printed.

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


def _become(command: list[str], environment: dict[str, str], stdout: str, stderr: str) -> None:
    os.setsid()
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(environment)
    for path, number in ((stdout, 1), (stderr, 2)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(file, number)
        os.close(file)
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115 - open for as long as the program runs
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    sys.argv = command
    [script] = entry_points(group="console_scripts", name=command[0])
    sys.exit(script.load()())


def import_all(package: str) -> None:
    """Import a package with all that is in it."""
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
