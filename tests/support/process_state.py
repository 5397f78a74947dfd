"""Set the state that a process inherits from its parent to the same values in every run of tests or benchmarks.

A shell that starts the tests in the background makes them ignore SIGINT, `nohup` makes them ignore SIGHUP, and a login
sets a language, a time zone and a umask. The programs under test inherit all of these.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import tempfile
import time
from types import FrameType

from microblog.development.process_manager import ManagedProcess

_INHERITED = {"PATH", "TMPDIR", "CI", "SCREENSHOTS", "FUZZ_REQUESTS"}
_INHERITED_PREFIXES = ("PYTEST_", "PYTHON", "API_FUZZ_", "COV_", "COVERAGE_")
_IGNORED_BY_PYTHON = {signal.SIGPIPE, signal.SIGXFSZ}  # Python ignores these so that a write raises an error instead
# Neither UTC nor a whole number of hours, to reveal reliance on the local zone. POSIX form needs no zone files.
TIME_ZONE = "TEST-05:45"


def normalize() -> None:
    """Set signal handling, umask, environment, HOME and closed standard streams to fixed values."""
    _open_standard_streams()
    _reset_signals()
    os.umask(0o022)
    for name in list(os.environ):
        if name not in _INHERITED and not name.startswith(_INHERITED_PREFIXES):
            del os.environ[name]
    os.environ |= {"LC_ALL": "C.UTF-8", "LANG": "C.UTF-8", "TZ": TIME_ZONE, "HOME": _empty_folder()}
    time.tzset()


def _open_standard_streams() -> None:
    """Open /dev/null for closed standard streams; otherwise the next opened file would take their descriptor."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)


def _reset_signals() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in signal.valid_signals() - _IGNORED_BY_PYTHON:
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    # A run that is terminated stops its servers as after Ctrl-C.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    # pytest-xdist soon kills its interrupted processes, too soon for their fixtures.
    if "PYTEST_XDIST_WORKER" in os.environ:
        ManagedProcess.kill_all()
    signal.default_int_handler(number, frame)


def _empty_folder() -> str:
    folder = tempfile.mkdtemp(prefix="microblog-home-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
