"""Information about a process from /proc: its memory and connections."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

MEGABYTE = 1024 * 1024
_ESTABLISHED = "01"


def memory(pid: int) -> int:
    """Return the current memory of `pid` in bytes (VmRSS)."""
    return _status(pid, "VmRSS")


def peak_memory(pid: int) -> int:
    """Return the peak memory of `pid` in bytes since it started, or since reset_peak_memory()."""
    return _status(pid, "VmHWM")


def reset_peak_memory(pid: int) -> None:
    """Reset the peak to the current memory."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_of(pid: int, work: Callable[[], object]) -> int:
    """Return the peak memory of `pid` in bytes during the second of two runs of `work`."""
    work()
    reset_peak_memory(pid)
    work()
    return peak_memory(pid)


def connections_to(port: int, pid: int) -> int:
    """Return the number of established TCP connections of `pid` to a local `port`."""
    own = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            own.add(os.readlink(descriptor))
    lines = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
    sockets = (line.split() for line in lines)
    return sum(
        fields[3] == _ESTABLISHED and int(fields[2].rpartition(":")[2], 16) == port and f"socket:[{fields[9]}]" in own
        for fields in sockets
    )


def _status(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(f"/proc/{pid}/status has no {name}")
