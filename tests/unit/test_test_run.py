"""The test run itself: independent of the process that starts it, with a summary of skipped tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.programs import ROOT
from tests.support.servers import TIMEOUT

NEEDS_TMUX = "tests/integration/test_watch_terminal.py::TestTerminalRestored::test_terminal_is_restored_on_exit"
STATE = """
import os, signal
from tests.support import process_state

process_state.normalize()
handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTSTP)]
assert signal.SIG_IGN not in handlers, handlers
assert os.umask(0) == 0o022
assert "SECRET_KEY" not in os.environ
assert os.listdir(os.environ["HOME"]) == []
assert os.environ["TZ"] == process_state.TIME_ZONE
assert os.open(os.devnull, os.O_RDONLY) > 2
"""

INTERRUPTED = """
import os, signal, subprocess
from microblog.development.process_manager import ManagedProcess
from tests.support import process_state

process_state.normalize()
process = ManagedProcess(["sleep", "300"], os.environ, stdout=subprocess.DEVNULL)
try:
    os.kill(os.getpid(), signal.SIGTERM)
except KeyboardInterrupt:
    assert process.wait(TIMEOUT) == -signal.SIGKILL
"""


@pytest.mark.exhaustive
def test_process_state_is_independent_of_parent_process() -> None:
    script = f"trap '' INT HUP TSTP; umask 077; exec {sys.executable} -c \"$STATE\" 0<&-"
    environment = {"STATE": STATE, "SECRET_KEY": "x", "HOME": "/nowhere", "PATH": os.environ["PATH"]}

    run = subprocess.run(
        ["sh", "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=TIMEOUT
    )

    assert run.returncode == 0, run.stderr


@pytest.mark.exhaustive
def test_interrupted_process_of_xdist_kills_its_servers() -> None:
    run = subprocess.run(
        [sys.executable, "-c", INTERRUPTED.replace("TIMEOUT", str(TIMEOUT))],
        cwd=ROOT,
        env=os.environ | {"PYTEST_XDIST_WORKER": "gw0"},
        capture_output=True,
        text=True,
        timeout=2 * TIMEOUT,
    )

    assert run.returncode == 0, run.stderr


@pytest.mark.exhaustive
@pytest.mark.parametrize("ci", [False, True])
def test_missing_program_is_reported_or_fails_in_ci(tmp_path: Path, ci: bool) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    environment |= {"PATH": str(tmp_path)} | ({"CI": "true"} if ci else {})
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--basetemp", str(tmp_path / "tests")]

    run = subprocess.run(
        [*command, NEEDS_TMUX], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=TIMEOUT
    )

    assert ("tmux: not installed" in run.stdout, run.returncode) == (True, 1 if ci else 0), run.stdout
    assert ("Tests skipped" in run.stdout) is not ci
    assert "tmux is not installed. On Debian: apt install tmux" in run.stdout
