"""The state that a process inherits from whoever starts it, set to the same for every run of the tests.

A shell that starts them in the background makes them ignore SIGINT, `nohup` makes them ignore SIGHUP, a login sets
a language, a time zone and a umask. All of it reaches the programs under test.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import tempfile
import time

_KEPT = {"PATH", "TMPDIR", "CI", "SCREENSHOTS", "FUZZ_REQUESTS"}
_KEPT_PREFIXES = ("PYTEST_", "PYTHON", "API_FUZZ_", "COV_", "COVERAGE_")
_PYTHONS_OWN = {signal.SIGPIPE, signal.SIGXFSZ}  # ignored by Python itself, so that a write raises an error
# Neither UTC nor a zone of whole hours: nothing may rely on the machine's. In POSIX form, which needs no zone files.
TIME_ZONE = "TEST-05:45"


def normalize() -> None:
    """Replace signal handling, umask, environment, HOME and closed standard streams by fixed values."""
    _open_standard_streams()
    _reset_signals()
    os.umask(0o022)
    for name in list(os.environ):
        if name not in _KEPT and not name.startswith(_KEPT_PREFIXES):
            del os.environ[name]
    os.environ |= {"LC_ALL": "C.UTF-8", "LANG": "C.UTF-8", "TZ": TIME_ZONE, "HOME": _empty_folder()}
    time.tzset()


def _open_standard_streams() -> None:
    """Open /dev/null in place of those that are closed: the next file opened would take their number."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)


def _reset_signals() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in signal.valid_signals() - _PYTHONS_OWN:
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def _empty_folder() -> str:
    folder = tempfile.mkdtemp(prefix="microblog-home-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
