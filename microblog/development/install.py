"""Install packages with pip and print its progress: `python microblog/development/install.py ARGUMENTS-OF-PIP-INSTALL`.

This runs before any package is installed, so it imports the standard library only.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from pathlib import Path
from typing import IO, NoReturn

INTERVAL = 3.0  # seconds between two lines of progress
MAX_TEXT = 70  # characters of a line of pip that are shown
PIP = (sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--progress-bar", "off")


class Progress:
    """The progress of pip, as read from its output."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self._found: set[str] = set()
        self._total = 0
        self._now = "starting pip"
        self._site = Path(sysconfig.get_path("purelib"))
        self._installed_before = 0
        self._began = time.monotonic()

    def read_output(self, lines: IO[str]) -> None:
        """Follow pip's standard output to its end."""
        for line in lines:
            if line.startswith("Collecting "):
                self._found.add(line.split()[1])
            elif line.startswith("Installing collected packages: "):
                self._installed_before = self._count_installed()
                self._total = line.count(",") + 1
            self._now = re.sub(r" \(from .*", "", line.strip())[:MAX_TEXT]

    def read_errors(self, lines: IO[str]) -> None:
        """Follow pip's standard error to its end."""
        for line in lines:
            self.errors.append(line)
            if "Retrying (" in line:
                self._now = "the package index does not answer; trying again"

    def describe(self) -> str:
        """Return the progress in one line."""
        seconds = time.monotonic() - self._began
        if self._total:
            done = min(max(self._count_installed() - self._installed_before, 0), self._total)
            return f"{seconds:3.0f} s: {done} of {self._total} packages are installed"
        return f"{seconds:3.0f} s: {len(self._found)} packages found; {self._now}"

    def describe_end(self) -> str:
        """Return the result of an installation that has succeeded."""
        if not self._total:
            return "Everything was installed already."
        return f"Installed {self._total} package{'s' if self._total > 1 else ''}."

    def describe_failure(self) -> str:
        """Return one sentence if the package index cannot be reached, else everything that pip wrote about errors."""
        errors = "".join(self.errors)
        if "Retrying (" not in errors:
            return errors
        cause = re.search(r"\[Errno -?\d+\] ([^'\"\n]+)|[Tt]imed out|timeout", errors)
        reason = f" ({cause[1] or 'no answer in time'})" if cause else ""
        return f"The package index cannot be reached{reason}: check the network, or set PIP_INDEX_URL.\n"

    def _count_installed(self) -> int:
        return sum(1 for _ in self._site.glob("*.dist-info"))


def main() -> int:
    """Run pip until it ends; return its exit code."""
    signal.signal(signal.SIGTERM, _stop)
    progress = Progress()
    # UTF-8, whatever the locale: pip writes it if its output is a pipe.
    with subprocess.Popen(
        [*PIP, *sys.argv[1:]],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        env=os.environ | {"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"},
    ) as pip:
        try:
            code = _follow(pip, progress)
        except BaseException:
            pip.terminate()
            raise
    if code:
        sys.stderr.write(progress.describe_failure())
    else:
        print(progress.describe_end())
    return code


def _follow(pip: subprocess.Popen[str], progress: Progress) -> int:
    """Print the progress of pip until it ends: in one line of a terminal, else in a new line each time."""
    readers = [
        threading.Thread(target=read, args=[lines], daemon=True)
        for read, lines in ((progress.read_output, pip.stdout), (progress.read_errors, pip.stderr))
    ]
    for reader in readers:
        reader.start()
    on_terminal = sys.stdout.isatty()
    while True:
        try:
            code = pip.wait(0.5 if on_terminal else INTERVAL)
            break
        except subprocess.TimeoutExpired:
            line = progress.describe()
            print(f"\r\033[K{line}" if on_terminal else line, end="" if on_terminal else "\n", flush=True)
    if on_terminal:
        print("\r\033[K", end="", flush=True)
    for reader in readers:
        reader.join()
    return code


def _stop(number: int, frame: object) -> NoReturn:
    sys.exit(128 + number)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
