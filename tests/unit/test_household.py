"""The programs of `make run` end in order, all of them, in time."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from microblog.development.console import Console
from microblog.development.household import Failure, Household, Program, StopRequest

# A program that notes its end in a file, in the folder that it runs in.
NOTES_ITS_END = "trap 'echo {name} >> ended; exit 0' TERM; echo up > {name}; while :; do sleep 0.02; done"


@pytest.fixture
def household(tmp_path: Path) -> Iterator[Household]:
    console = Console(["first"])
    yield Household(tmp_path, os.environ, console)
    console.close()


def shell(name: str, script: str) -> Program:
    return Program(name, f"sh -c {shlex.quote(script)}", hurry=signal.SIGQUIT)


def wait_for(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def test_what_started_last_has_ended_before_what_started_first(household: Household, tmp_path: Path) -> None:
    with household:
        for name in ("redis", "worker"):
            household.start(shell(name, NOTES_ITS_END.format(name=name)), grace=5)
            household.wait_until((tmp_path / name).exists, name, seconds=10)

    assert (tmp_path / "ended").read_text().split() == ["worker", "redis"]


def test_a_program_that_ends_by_itself_is_named(household: Household) -> None:
    with household:
        household.start(shell("web", "exit 3"), grace=1)

        with pytest.raises(Failure, match=r"web ended by itself \(exit code 3\)"):
            household.watch()


def test_a_step_that_fails_stops_the_start(household: Household) -> None:
    with pytest.raises(Failure, match=r"migrations failed \(exit code 1\)"), household:
        household.run(Program("migrations", "false"), grace=1)


def test_what_does_not_answer_is_named(household: Household) -> None:
    with pytest.raises(Failure, match=r"Redis did not answer within 0\.1 seconds"), household:
        household.wait_until(lambda: False, "Redis", seconds=0.1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_asks_for_the_end(household: Household, number: signal.Signals) -> None:
    with household:
        os.kill(os.getpid(), number)

        with pytest.raises(StopRequest):
            household.watch()

    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_program_that_will_not_end_is_killed_with_its_children(household: Household, tmp_path: Path) -> None:
    stubborn = "trap '' TERM QUIT; sleep 300 & echo $! > child; wait"
    with household:
        household.start(shell("stubborn", stubborn), grace=0.2)
        household.wait_until(lambda: said(tmp_path / "child") != "", "the child", seconds=10)
    child = int(said(tmp_path / "child"))

    wait_for(lambda: not is_running(child))


def test_a_reminder_reaches_a_program_that_dawdles(household: Household, tmp_path: Path) -> None:
    script = "trap : TERM; trap 'echo > hurried; exit' QUIT; echo > up; while :; do sleep 0.02; done"
    with household:
        household.start(shell("worker", script), grace=4)
        household.wait_until((tmp_path / "up").exists, "worker", seconds=10)

    assert (tmp_path / "hurried").exists()


def test_a_reader_who_stops_reading_stops_nothing(tmp_path: Path) -> None:
    script = f"""
import os, pathlib
from microblog.development.console import Console
from microblog.development.household import Household, Program, StopRequest
console = Console(["talker"])
try:
    with Household(pathlib.Path({str(tmp_path)!r}), os.environ, console) as household:
        household.start(Program("talker", "sh -c 'seq 200000; echo > said; sleep 300'"), grace=1)
        household.watch()
except StopRequest:
    console.close()
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as house:
        wait_for((tmp_path / "said").exists, seconds=30)
        house.send_signal(signal.SIGTERM)

        assert house.wait(timeout=10) == 0


def said(file: Path) -> str:
    return file.read_text().strip() if file.exists() else ""


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
