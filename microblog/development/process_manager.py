"""Start programs in groups, watch them, prefix their output with their names, and stop them in reverse order."""

from __future__ import annotations

import io
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NoReturn, Self

from honcho.colour import get_colours
from honcho.printer import Message, Printer

STDOUT = 1
MAX_QUEUED_LINES = 10_000


class Console:
    """A printer of lines from any thread, which never blocks the thread, even if standard output is slow or closed.

    If standard output blocks (a full pipe, a paused terminal), lines beyond ``MAX_QUEUED_LINES`` are dropped, and the
    programs continue.
    """

    def __init__(self, names: Iterable[str]) -> None:
        names = list(names)
        self._colours = dict(zip(names, get_colours(), strict=False))
        # Not sys.stdout: a blocked print would still hold the lock of its buffer at interpreter exit.
        output = io.TextIOWrapper(
            io.FileIO(STDOUT, "w", closefd=False), encoding="utf-8", errors="replace", write_through=True
        )
        self._printer = Printer(output, width=max(map(len, names), default=0))
        self._lines: queue.Queue[Any] = queue.Queue(MAX_QUEUED_LINES)
        self._thread = threading.Thread(target=self._print, daemon=True)
        self._thread.start()

    def say(self, text: str | bytes, name: str = "") -> None:
        """Print `text`, prefixed with `name`, the program that wrote it."""
        with suppress(queue.Full):
            self._lines.put_nowait(Message("line", text, datetime.now(), name, self._colours.get(name)))

    def close(self, timeout: float = 0.5) -> None:
        """Print the remaining lines, for `timeout` seconds at most."""
        with suppress(queue.Full):
            self._lines.put_nowait(None)
        self._thread.join(timeout)

    def _print(self) -> None:
        for message in iter(self._lines.get, None):
            with suppress(OSError):  # standard output is closed, so the error cannot be reported
                self._printer.write(message)


STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
TICK = 0.05  # seconds between two checks


class Failure(Exception):
    """A program failed; the message is one sentence for the developer."""


class StopRequest(Exception):
    """A request to stop: Ctrl-C, SIGTERM, or a closed terminal."""


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
        self._groups: list[_Group] = []
        self._stop_requested = False

    def __enter__(self) -> Self:
        self._handlers = {number: signal.signal(number, self._request_stop) for number in STOP_SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for group in reversed(self._groups):
            group.stop()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def start(self, *programs: Program, grace: float) -> None:
        """Start a group of programs. They are killed if they do not stop within `grace` seconds."""
        self._check()
        group = _Group(grace)
        self._groups.append(group)
        for program in programs:
            group.children.append(_Child(program, self._folder, self._environment, self._console))

    def run(self, program: Program, grace: float) -> None:
        """Run a program to its end. Raises Failure unless its exit code is 0."""
        self.start(program, grace=grace)
        child = self._groups[-1].children[0]
        while child.running:
            self._check(besides=child)
            time.sleep(TICK)
        self._groups.pop().stop()
        if child.exit_code != 0:
            raise Failure(f"{program.name} failed (exit code {child.exit_code}); see its last lines above.")

    def wait_until(self, ready: Callable[[], bool], what: str, seconds: float) -> None:
        """Return when `ready()` is true. Raises Failure, naming `what`, after `seconds`."""
        deadline = time.monotonic() + seconds
        while not ready():
            self._check()
            if time.monotonic() > deadline:
                raise Failure(f"{what} did not answer within {seconds:g} seconds.")
            time.sleep(TICK)

    def watch(self) -> NoReturn:
        """Block until a stop is requested or a program ends. Raises StopRequest or Failure."""
        while True:
            self._check()
            time.sleep(TICK)

    def _check(self, besides: _Child | None = None) -> None:
        if self._stop_requested:
            raise StopRequest
        for group in self._groups:
            for child in group.children:
                if child is not besides and not child.running:
                    raise Failure(f"{child.program.name} ended by itself (exit code {child.exit_code}).")

    def _request_stop(self, number: int, frame: FrameType | None) -> None:
        self._stop_requested = True


class _Group:
    """Programs that are started and stopped together."""

    def __init__(self, grace: float) -> None:
        self.children: list[_Child] = []
        self._grace = grace

    def stop(self) -> None:
        """Send SIGTERM, then the second signal, then SIGKILL; return when no process is left."""
        for child in self.children:
            child.send(signal.SIGTERM)
        started = time.monotonic()
        if not self._ended_by(started + self._grace / 2):
            for child in self.children:
                if child.program.second_signal is not None:
                    child.send(child.program.second_signal)
            self._ended_by(started + self._grace)
        for child in self.children:
            child.sweep()

    def _ended_by(self, deadline: float) -> bool:
        while any(child.running for child in self.children):
            if time.monotonic() > deadline:
                return False
            time.sleep(TICK)
        return True


class _Child:
    """One running program, in its own session, so that Ctrl-C in the terminal does not reach it."""

    def __init__(self, program: Program, folder: Path, environment: Mapping[str, str], console: Console) -> None:
        self.program = program
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", f"exec {program.command}"],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._relay = threading.Thread(target=self._relay_output, args=[console], daemon=True)
        self._relay.start()

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        return self._process.returncode

    def send(self, number: signal.Signals) -> None:
        """Signal the program only, which is responsible for stopping its children."""
        self._process.send_signal(number)

    def sweep(self) -> None:
        """Kill the remaining processes of the program's group, and wait for the last lines of output."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._relay.join(timeout=0.5)

    def _relay_output(self, console: Console) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                console.say(line, self.program.name)
