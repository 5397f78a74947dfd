"""Start programs in groups, start them again if they end, print their output, and stop them in reverse order."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, ClassVar, NoReturn, Self, TypeVar
from weakref import WeakSet

from config import ROOT
from microblog.development.console import BAD, Console

T = TypeVar("T")

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
TICK = 0.05  # seconds between two checks
STOP_GRACE = 10.0  # seconds that a program has to stop if its start fails
# Seconds before a program is started again: after its first end, its second end in a row, ….
PAUSES = (0.5, 1.0, 2.0, 4.0)
SETTLED = 10.0  # seconds; the end of a program that has run so long is not in a row with the previous ones
LAST_LINES = 20  # lines of a program that are printed if it ends `make run`


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
    """A shell command with a name.

    `second_signal` is sent after half of the grace period. The output of a `quiet` program is printed only if the
    program ends `make run`.
    """

    name: str
    command: str
    second_signal: signal.Signals | None = None
    quiet: bool = False


class ProcessManager:
    """Context manager that runs programs and stops all of them on exit.

    While a program runs, the file `pid_folder`/NAME.pid contains its process id. Each method raises StopRequest once a
    stop has been requested. Before watch(), each raises Failure if a program has ended by itself.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str], console: Console, pid_folder: Path) -> None:
        self._folder = folder
        self._environment = environment
        self._console = console
        self._pid_folder = pid_folder
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
        for program in programs:
            pid_file = self._pid_folder / f"{program.name}.pid"
            children.append(_Child(program, self._folder, self._environment, self._console, pid_file))

    def run(self, program: Program, grace: float) -> None:
        """Run a program to its end. Raises Failure unless its exit code is 0."""
        self.start(program, grace=grace)
        [child], _grace = self._groups[-1]
        while (code := child.poll()) is None:
            self._check(ignored=child)
            time.sleep(TICK)
        if code != 0:
            raise child.failure(f"failed ({describe_end(code)})")
        child.kill()
        self._groups.pop()

    def wait_until(self, ready: Callable[[], bool], what: str, seconds: float) -> None:
        """Return when `ready()` is true. Raises Failure, naming `what`, after `seconds`."""

        def is_ready() -> bool:
            self._check()
            return ready()

        if not poll_until(is_ready, seconds):
            raise Failure(f"{what} did not answer within {seconds:g} seconds.")

    def watch(self) -> NoReturn:
        """Start each program again that ends, until a stop is requested.

        Raises StopRequest, or Failure if a program ends once more in a row than there are ``PAUSES``.
        """
        while True:
            self._check_stop()
            for child in self._children():
                child.keep_running()
            time.sleep(TICK)

    def _check(self, ignored: _Child | None = None) -> None:
        self._check_stop()
        for child in self._children():
            if child is not ignored and (code := child.poll()) is not None:
                raise child.failure(f"ended by itself ({describe_end(code)}) during the start")

    def _check_stop(self) -> None:
        if self._stop_requested:
            raise StopRequest

    def _children(self) -> Iterator[_Child]:
        for children, _grace in self._groups:
            yield from children

    def _request_stop(self, number: int, frame: FrameType | None) -> None:
        self._stop_requested = True


def describe_end(code: int) -> str:
    """Return how a program with this exit code has ended, such as "exit code 3" or "signal SIGKILL"."""
    signals = {-number.value: number.name for number in signal.Signals}
    return f"exit code {code}" if code >= 0 else f"signal {signals.get(code, -code)}"


class _Child(ManagedProcess):
    """A program whose output is printed."""

    def __init__(
        self, program: Program, folder: Path, environment: Mapping[str, str], console: Console, pid_file: Path
    ) -> None:
        self.second_signal = program.second_signal
        self._program = program
        self._console = console
        self._pid_file = pid_file
        self._last_lines: deque[str] = deque(maxlen=LAST_LINES)
        self._ends_in_a_row = 0
        self._restart_at: float | None = None  # on the clock of time.monotonic(); None while the program runs
        super().__init__(
            ["/bin/sh", "-c", f"exec {program.command}"], environment, stdout=subprocess.PIPE, folder=folder
        )

    def kill(self) -> None:
        """Kill the program and its children, and wait for the last lines of output."""
        super().kill()
        self._pid_file.unlink(missing_ok=True)
        self._relay.join(timeout=0.5)

    def keep_running(self) -> None:
        """If the program has ended, start it again after a pause. Raises Failure if it has ended too often in a row."""
        if self._restart_at is not None:
            if time.monotonic() >= self._restart_at:
                self._restart_at = None
                self.restart()
        elif (code := self.poll()) is not None:
            has_settled = time.monotonic() - self._started_at >= SETTLED
            self._ends_in_a_row = 1 if has_settled else self._ends_in_a_row + 1
            end = describe_end(code)
            if self._ends_in_a_row > len(PAUSES):
                times = f"{self._ends_in_a_row} times in quick succession, the last time with {end}"
                raise self.failure(f"ended {times}; it is not started again")
            self.kill()
            pause = PAUSES[self._ends_in_a_row - 1]
            self._restart_at = time.monotonic() + pause
            self._console.say(f"ended ({end}); it is started again in {pause:g} s", self._program.name, BAD)

    def failure(self, sentence: str) -> Failure:
        """Return the error that this program `sentence`, with its last output."""
        self.kill()
        output = "".join(f"\n  {line}" for line in self._last_lines) or " nothing."
        return Failure(f"{self._program.name} {sentence}. Its last output:{output}")

    def _start(self) -> None:
        super()._start()
        self._started_at = time.monotonic()
        self._pid_file.write_text(f"{self.pid}\n")
        self._relay = threading.Thread(target=self._relay_output, args=[self._process.stdout], daemon=True)
        self._relay.start()

    def _relay_output(self, output: IO[bytes]) -> None:
        with output:
            for line in output:
                text = line.decode(errors="replace").rstrip()
                self._last_lines.append(text)
                if text and not self._program.quiet:
                    self._console.say(text, self._program.name)
