"""Start programs in groups, watch them, print their output, and stop them in reverse order."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import ClassVar, NoReturn, Self, TypeVar
from weakref import WeakSet

from config import ROOT
from microblog.development.console import Console

T = TypeVar("T")

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
TICK = 0.05  # seconds between two checks
STOP_GRACE = 10.0  # seconds that a program has to stop if its start fails


class Failure(Exception):
    """A program failed; the message is one sentence for the developer."""


class StopRequest(Exception):
    """A request to stop: Ctrl-C, SIGTERM, or a closed terminal."""


def poll_until(condition: Callable[[], T], timeout: float, interval: float = TICK) -> T:
    """Return the first true value of `condition`, or its last value after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not (value := condition()) and time.monotonic() <= deadline:
        time.sleep(interval)
    return value


class ManagedProcess:
    """A running program in its own session, so that Ctrl-C in the terminal does not reach it.

    `stdout` is the file to which its output is appended, stderr included, or a constant of subprocess, such as DEVNULL.
    """

    second_signal: signal.Signals | None = None  # sent by stop() after half of the grace period
    kill_signal = signal.SIGKILL  # sent by kill_all(); SIGTERM suits a program that stops sessions of its own
    _group_exists = False
    _instances: ClassVar[WeakSet[ManagedProcess]] = WeakSet()

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        stdout: Path | int,
        folder: Path = ROOT,
        user: str | None = None,
    ) -> None:
        self.command = list(command)
        self._environment = environment
        self._stdout = stdout
        self._folder = folder
        self._user = user
        self._instances.add(self)
        self._start()

    @classmethod
    def kill_all(cls) -> None:
        """Send its `kill_signal` to each running program and its children, without waiting, as in a signal handler."""
        for process in list(cls._instances):
            process.signal_group(process.kill_signal)

    def restart(self) -> None:
        """Start the program again, after killing what is left of it."""
        self.kill()
        self._start()

    def poll(self) -> int | None:
        """Return the exit code, negative if a signal ended the program; None while it runs."""
        return self._process.poll()

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit code. Raises subprocess.TimeoutExpired after `timeout` seconds."""
        return self._process.wait(timeout)

    def wait_until(self, ready: Callable[[], bool], what: str, seconds: float) -> None:
        """Return when `ready()` is true. Otherwise stop the program after `seconds` and raise Failure with its log."""
        if not poll_until(lambda: ready() or self.poll() is not None, seconds) or self.poll() is not None:
            self.stop(STOP_GRACE)
            log = self._stdout.read_text(errors="replace") if isinstance(self._stdout, Path) else ""
            raise Failure(f"{what} ended, or did not answer within {seconds:g} seconds.\n{log}")

    def children(self) -> list[int]:
        """Return the ids of the child processes (Linux only); none if the program has ended."""
        with suppress(OSError):
            return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]
        return []

    def send_signal(self, number: int) -> None:
        """Signal the program only, which is responsible for its children; do nothing if it has ended."""
        with suppress(ProcessLookupError):
            if self.poll() is None:
                os.kill(self.pid, number)

    def signal_group(self, number: int) -> None:
        """Signal the program and its children; do nothing if all have ended, or after kill()."""
        if self._group_exists:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM to the program."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill (SIGKILL) the program and its children, and wait for its end."""
        self.signal_group(signal.SIGKILL)
        self.send_signal(signal.SIGKILL)  # a process that was just forked is not in its own group yet
        self.wait()
        self._group_exists = False  # the system may give its number to another group

    def stop(self, grace: float) -> None:
        """Send SIGTERM, and kill what is left when the program has ended, or after `grace` seconds."""
        stop_all([self], grace)

    def _start(self) -> None:
        self.pid = self._spawn()
        self._group_exists = True

    def _spawn(self) -> int:
        """Start the program in a session of its own, and return its id."""
        with ExitStack() as files:
            stdout = files.enter_context(self._stdout.open("ab")) if isinstance(self._stdout, Path) else self._stdout
            self._process = subprocess.Popen(
                self.command,
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=self._user,
            )
        return self._process.pid


def stop_all(processes: Sequence[ManagedProcess], grace: float) -> None:
    """Send SIGTERM, then the second signal, then SIGKILL, within `grace` seconds; return when no process is left."""

    def have_ended() -> bool:
        return all(process.poll() is not None for process in processes)

    for process in processes:
        process.terminate()
    if not poll_until(have_ended, grace / 2):
        for process in processes:
            if process.second_signal is not None:
                process.send_signal(process.second_signal)
        poll_until(have_ended, grace / 2)
    for process in processes:
        process.kill()


@dataclass(frozen=True)
class Program:
    """A shell command with a name. `second_signal` is sent after half of the grace period."""

    name: str
    command: str
    second_signal: signal.Signals | None = None


class ProcessManager:
    """Context manager that runs programs and stops all of them on exit.

    Each method raises StopRequest once a stop has been requested, and Failure if a program has ended by itself.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str], console: Console) -> None:
        self._folder = folder
        self._environment = environment
        self._console = console
        self._groups: list[tuple[list[_Child], float]] = []  # programs that stop together, and their grace period
        self._stop_requested = False

    def __enter__(self) -> Self:
        self._handlers = {number: signal.signal(number, self._request_stop) for number in STOP_SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for children, grace in reversed(self._groups):
            stop_all(children, grace)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def start(self, *programs: Program, grace: float) -> None:
        """Start a group of programs. They are killed if they do not stop within `grace` seconds."""
        self._check()
        children: list[_Child] = []
        self._groups.append((children, grace))
        children.extend(_Child(program, self._folder, self._environment, self._console) for program in programs)

    def run(self, program: Program, grace: float) -> None:
        """Run a program to its end. Raises Failure unless its exit code is 0."""
        self.start(program, grace=grace)
        [child], _grace = self._groups[-1]
        while (code := child.poll()) is None:
            self._check(ignored=child)
            time.sleep(TICK)
        child.kill()
        self._groups.pop()
        if code != 0:
            raise Failure(f"{program.name} failed (exit code {code}); see its last lines above.")

    def wait_until(self, ready: Callable[[], bool], what: str, seconds: float) -> None:
        """Return when `ready()` is true. Raises Failure, naming `what`, after `seconds`."""

        def is_ready() -> bool:
            self._check()
            return ready()

        if not poll_until(is_ready, seconds):
            raise Failure(f"{what} did not answer within {seconds:g} seconds.")

    def watch(self) -> NoReturn:
        """Block until a stop is requested or a program ends. Raises StopRequest or Failure."""
        while True:
            self._check()
            time.sleep(TICK)

    def _check(self, ignored: _Child | None = None) -> None:
        if self._stop_requested:
            raise StopRequest
        for children, _grace in self._groups:
            for child in children:
                if child is not ignored and (code := child.poll()) is not None:
                    raise Failure(f"{child.name} ended by itself (exit code {code}).")

    def _request_stop(self, number: int, frame: FrameType | None) -> None:
        self._stop_requested = True


class _Child(ManagedProcess):
    """A program whose output is printed."""

    def __init__(self, program: Program, folder: Path, environment: Mapping[str, str], console: Console) -> None:
        command = ["/bin/sh", "-c", f"exec {program.command}"]
        super().__init__(command, environment, stdout=subprocess.PIPE, folder=folder)
        self.name = program.name
        self.second_signal = program.second_signal
        self._relay = threading.Thread(target=self._relay_output, args=[console], daemon=True)
        self._relay.start()

    def kill(self) -> None:
        """Kill the program and its children, and wait for the last lines of output."""
        super().kill()
        self._relay.join(timeout=0.5)

    def _relay_output(self, console: Console) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                console.say(line, self.name)
