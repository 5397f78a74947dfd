"""`make run` brings up all of Microblog, ends all of it, and finds everything again the next time."""

from __future__ import annotations

import mailbox
import os
import signal
import smtplib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from pathlib import Path
from socket import gethostname

import pytest
import redis
from dotenv import dotenv_values

from tests.support.programs import ROOT
from tests.support.servers import PATIENCE, free_port, wait_for

TIME_TO_END = 30.0  # seconds: it kills what has not ended by itself after 7.5, and a loaded machine adds some


class House:
    """The runner and all that it started."""

    def __init__(self, instance: Path, port: int) -> None:
        kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")}
        self.url = f"http://127.0.0.1:{port}"
        self.runner = subprocess.Popen(
            [sys.executable, "-m", "microblog.development.runner"],
            cwd=ROOT,
            env=kept | {"INSTANCE_PATH": str(instance), "PORT": str(port)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()
        self.instance = instance

    def wait_until_ready(self) -> None:
        """Until it says so; then its processes and what it tells a second terminal are known."""
        wait_for(self._is_ready, timeout=2 * PATIENCE, what="the ready line")
        self.processes = descendants(self.runner.pid)
        self.shared = {name: value or "" for name, value in dotenv_values(self.instance / "dev.env").items()}

    def end(self, number: signal.Signals = signal.SIGINT) -> float:
        """Ask for the end; returns how many seconds it took."""
        asked_at = time.monotonic()
        self.runner.send_signal(number)
        self.runner.wait(timeout=PATIENCE)
        return time.monotonic() - asked_at

    def _read(self) -> None:
        assert self.runner.stdout is not None
        self.lines.extend(self.runner.stdout)

    def _is_ready(self) -> bool:
        assert self.runner.poll() is None, "".join(self.lines)
        return any("Microblog is ready" in line and self.url in line for line in list(self.lines))


def descendants(pid: int) -> set[int]:
    """The processes below `pid`."""
    table = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = {int(child): int(parent) for child, parent in map(str.split, table.splitlines())}
    found, wave = set[int](), {pid}
    while wave:
        wave = {child for child, parent in parents.items() if parent in wave}
        found |= wave
    return found


def is_running(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout
    return state.strip() != "" and not state.startswith("Z")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], House]]:
    """Starts the house, each time in the same folder."""
    houses: list[House] = []

    def start_house() -> House:
        house = House(tmp_path / "instance", free_port())
        houses.append(house)
        house.wait_until_ready()
        return house

    yield start_house
    for house in houses:
        house.end()


@pytest.mark.exhaustive
def test_it_ends_whole_and_in_time_and_finds_everything_again(start: Callable[[], House], tmp_path: Path) -> None:
    house = start()
    only = ["--destination", f"celery@{gethostname()}", "--timeout", str(PATIENCE)]  # returns as soon as it answers
    assert "pong" in second_terminal(tmp_path / "instance", "celery", "-A", "celery_app", "inspect", "ping", *only)
    send_mail("kept", house.shared["MAIL_SERVER"], int(house.shared["MAIL_PORT"]))
    redis.Redis.from_url(house.shared["REDIS_URL"]).set("kept", "yes")

    seconds = house.end(signal.SIGTERM)

    assert seconds < TIME_TO_END
    assert house.runner.returncode == 0
    assert len(house.processes) > 5
    assert [pid for pid in house.processes if is_running(pid)] == []

    house = start()

    assert redis.Redis.from_url(house.shared["REDIS_URL"]).get("kept") == b"yes"
    assert [mail["Subject"] for mail in mailbox.Maildir(tmp_path / "instance" / "mail")] == ["kept"]


def second_terminal(instance: Path, *command: str) -> str:
    """What `python -m` of a command prints that knows nothing but the folder."""
    environment = {"PATH": os.environ["PATH"], "INSTANCE_PATH": str(instance)}
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
    ).stdout


def send_mail(subject: str, server: str, port: int) -> None:
    mail = EmailMessage()
    mail["Subject"] = subject
    with smtplib.SMTP(server, port) as smtp:
        smtp.send_message(mail, "a@example.org", "b@example.org")
