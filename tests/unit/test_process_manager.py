"""The process manager of `make run`: programs that end are started again; all are stopped, in order and in time."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from microblog.development import process_manager
from microblog.development.console import Console
from microblog.development.process_manager import (
    PAUSES,
    STOP_SIGNALS,
    Failure,
    ManagedProcess,
    ProcessManager,
    Program,
    StopRequest,
)
from tests.support.servers import TIMEOUT, wait_for

# A program that records in a file of its working directory that it was terminated.
RECORDS_TERMINATION = "trap 'echo {name} >> ended; exit 0' TERM; echo up > {name}; while :; do sleep 0.02; done"


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[ProcessManager]:
    console = Console(["first"])
    yield ProcessManager(tmp_path, os.environ, console, pid_folder=tmp_path)
    console.close()


def shell(name: str, script: str) -> Program:
    return Program(name, f"sh -c {shlex.quote(script)}", second_signal=signal.SIGQUIT)


class SlowClock:
    """A clock at 1/60 of real speed. It jumps `jump` seconds ahead after the first reading with a true `due()`."""

    def __init__(self, due: Callable[[], bool], jump: float) -> None:
        self._due = due
        self._jump = jump
        self._readings = 0

    def __call__(self) -> float:
        self._readings += self._due()
        return time.monotonic() / 60 + (self._jump if self._readings > 1 else 0)


def test_programs_stop_in_reverse_order(manager: ProcessManager, tmp_path: Path) -> None:
    with manager:
        for name in ("redis", "worker"):
            manager.start(shell(name, RECORDS_TERMINATION.format(name=name)), grace=2 * TIMEOUT)
            manager.wait_until((tmp_path / name).exists, name, seconds=TIMEOUT)

    assert (tmp_path / "ended").read_text().split() == ["worker", "redis"]


def test_end_during_start_is_reported_with_last_output(manager: ProcessManager) -> None:
    with manager:
        manager.start(shell("web", "echo no such module; exit 3"), grace=1)

        with pytest.raises(Failure) as raised:
            manager.wait_until(lambda: False, "web", seconds=TIMEOUT)

    assert str(raised.value) == (
        "web ended by itself (exit code 3) during the start. Its last output:\n  no such module"
    )


def test_failed_step_aborts_start(manager: ProcessManager) -> None:
    with pytest.raises(Failure, match=r"migrations failed \(exit code 1\)"), manager:
        manager.run(Program("migrations", "false"), grace=1)


def test_killed_program_is_started_again(
    manager: ProcessManager, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    second = "until [ -e first.pid ]; do sleep 0.02; done; kill -TERM $PPID; sleep 300"
    script = f"echo $$ >> starts; if [ $(wc -l < starts) = 2 ]; then {second}; fi; kill -KILL $$"
    with manager:
        manager.start(shell("first", script), grace=1)

        with pytest.raises(StopRequest):
            manager.watch()

        assert content(tmp_path / "first.pid") == content(tmp_path / "starts").split()[1]
    assert not (tmp_path / "first.pid").exists()
    wait_for_lines(capfd, ["first  ended (signal SIGKILL); it is started again in 0.5 s"])


def test_pauses_grow_until_program_ends_too_often(
    manager: ProcessManager, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert sorted(set(PAUSES)) == list(PAUSES)
    assert len(PAUSES) == 4
    monkeypatch.setattr(process_manager, "PAUSES", (0.01, 0.02, 0.03, 0.04))
    with manager:
        manager.start(Program("first", "sh -c 'echo port taken; exit 3'", quiet=True), grace=1)

        with pytest.raises(Failure) as raised:
            manager.watch()

    assert str(raised.value) == (
        "first ended 5 times in quick succession, the last time with exit code 3; it is not started again."
        " Its last output:" + 5 * "\n  port taken"
    )
    again = [f"first  ended (exit code 3); it is started again in {pause} s" for pause in (0.01, 0.02, 0.03, 0.04)]
    wait_for_lines(capfd, again)


def test_program_that_had_settled_is_started_again_without_limit(
    manager: ProcessManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_manager, "PAUSES", (0.01,))
    monkeypatch.setattr(process_manager, "SETTLED", 0)
    with manager:
        manager.start(shell("first", "echo >> starts; [ $(wc -l < starts) -lt 4 ] || kill -TERM $PPID"), grace=1)

        with pytest.raises(StopRequest):
            manager.watch()

    assert (tmp_path / "starts").read_text().count("\n") >= 4


def test_stop_during_pause_before_restart(
    manager: ProcessManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_manager, "PAUSES", (3600.0,))
    # The file of its process id disappears once the end of the program has been noticed.
    stop = "while [ -e first.pid ]; do sleep 0.02; done; kill -TERM $PPID; sleep 300"
    with manager:
        manager.start(shell("first", "echo >> starts"), shell("second", stop), grace=1)

        with pytest.raises(StopRequest):
            manager.watch()

    assert (tmp_path / "starts").read_text().count("\n") == 1


def test_what_a_program_leaves_is_killed_before_restart(manager: ProcessManager, tmp_path: Path) -> None:
    script = "sleep 300 & echo $! >> left; [ $(wc -l < left) = 1 ] || kill -TERM $PPID"
    with manager:
        manager.start(shell("first", script), grace=1)

        with pytest.raises(StopRequest):
            manager.watch()

        left = int(content(tmp_path / "left").split()[0])
        wait_for(lambda: not is_running(left))


def test_wait_until_names_unresponsive_program(manager: ProcessManager) -> None:
    with pytest.raises(Failure, match=r"Redis did not answer within 0\.1 seconds"), manager:
        manager.wait_until(lambda: False, "Redis", seconds=0.1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_stop_signal_raises_stop_request(manager: ProcessManager, number: signal.Signals) -> None:
    handlers = [signal.getsignal(each) for each in STOP_SIGNALS]
    with manager:
        os.kill(os.getpid(), number)

        with pytest.raises(StopRequest):
            manager.watch()

    assert [signal.getsignal(each) for each in STOP_SIGNALS] == handlers


def test_stubborn_program_is_killed_with_children(manager: ProcessManager, tmp_path: Path) -> None:
    stubborn = "trap '' TERM QUIT; sleep 300 & echo $! > child; wait"
    with manager:
        manager.start(shell("stubborn", stubborn), grace=0.2)
        manager.wait_until(lambda: content(tmp_path / "child") != "", "the child", seconds=TIMEOUT)
    child = int(content(tmp_path / "child"))

    wait_for(lambda: not is_running(child))


def test_second_signal_is_sent_to_slow_program(
    manager: ProcessManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = "trap 'echo > first' TERM; trap 'echo > second; exit' QUIT; echo > up; while :; do sleep 0.02; done"
    clock = SlowClock((tmp_path / "first").exists, jump=2.1)  # more than half of the grace period
    monkeypatch.setattr(process_manager, "time", SimpleNamespace(monotonic=clock, sleep=time.sleep))
    with manager:
        manager.start(shell("worker", script), grace=4)
        manager.wait_until((tmp_path / "up").exists, "worker", seconds=2)

    assert (tmp_path / "second").exists()


def test_restart_kills_what_is_left_and_keeps_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = ManagedProcess(["sh", "-c", "sleep 300 & echo $!"], os.environ, stdout=log, folder=tmp_path)
    try:
        assert process.wait(TIMEOUT) == 0
        left = int(content(log))
        assert is_running(left)

        process.restart()

        wait_for(lambda: not is_running(left), what="the remaining process is killed")
        wait_for(lambda: len(content(log).splitlines()) == 2, what="the second start writes to the log")
    finally:
        process.kill()


@pytest.mark.exhaustive
def test_unread_output_does_not_block_shutdown(tmp_path: Path) -> None:
    script = f"""
import os, pathlib
from microblog.development.console import Console
from microblog.development.process_manager import ProcessManager, Program, StopRequest
console = Console(["talker"])
folder = pathlib.Path({str(tmp_path)!r})
try:
    with ProcessManager(folder, os.environ, console, folder) as manager:
        manager.start(Program("talker", "sh -c 'seq 200000; echo > written; sleep 300'"), grace=1)
        manager.watch()
except StopRequest:
    console.close()
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        wait_for((tmp_path / "written").exists, what="the program has written all its output")
        process.send_signal(signal.SIGTERM)

        assert process.wait(timeout=TIMEOUT) == 0


def wait_for_lines(capfd: pytest.CaptureFixture[str], expected: list[str]) -> None:
    """Wait until these lines, behind their times, have been printed since the last call, and no others."""
    printed: list[str] = []

    def have_appeared() -> bool:
        printed.extend(line.partition(" ")[2] for line in capfd.readouterr().out.splitlines())
        return len(printed) >= len(expected)

    wait_for(have_appeared, what=f"the lines {expected}")
    assert printed == expected


def content(file: Path) -> str:
    return file.read_text().strip() if file.exists() else ""


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # the process ended before the file was opened or read
        return False
