"""``make run`` starts every program of Microblog, again if one ends, stops them all, and keeps the state."""

from __future__ import annotations

import mailbox
import os
import re
import signal
import smtplib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from pathlib import Path
from socket import gethostname

import pytest
from dotenv import dotenv_values

from microblog.development.process_manager import ManagedProcess
from microblog.development.servers import web_answers
from tests.support.programs import ROOT
from tests.support.servers import TIMEOUT, free_port, wait_for

TIME_TO_END = 30.0  # seconds: the runner kills remaining processes after 7.5; the rest is for a busy machine


class DevelopmentServer:
    """The development runner and the processes that it started."""

    def __init__(self, instance: Path, port: int) -> None:
        environment = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")}
        self.url = f"http://127.0.0.1:{port}"
        self.instance = instance
        self.output = instance.with_name(f"output-{port}")
        self.runner = ManagedProcess(
            [sys.executable, "-m", "microblog.development.runner"],
            environment | {"INSTANCE_PATH": str(instance), "PORT": str(port)},
            stdout=self.output,
        )
        self.runner.kill_signal = signal.SIGTERM

    def wait_until_ready(self) -> None:
        """Wait for the ready line; then set `processes`, and `shared`, the environment for a second terminal."""
        ready = f"Microblog is ready: {self.url}"
        self.runner.wait_until(lambda: ready in self.output.read_text(), "make run", 2 * TIMEOUT)
        self.processes = descendants(self.runner.pid)
        self.lines_of_start = self.output.read_text().splitlines()
        self.shared = {name: value or "" for name, value in dotenv_values(self.instance / "dev.env").items()}

    def pid(self, name: str) -> int:
        """Return the process id of a program, or 0 while it does not run."""
        file = self.instance / f"{name}.pid"
        return int(file.read_text() or 0) if file.exists() else 0

    def kill(self, name: str) -> None:
        """Kill a program, and wait until it has been started again."""
        killed = self.pid(name)
        os.kill(killed, signal.SIGKILL)
        wait_for(lambda: self.pid(name) not in (0, killed), what=f"a new {name}")

    def end(self, number: signal.Signals = signal.SIGINT) -> float:
        """Stop the runner; return the number of seconds that it took."""
        stopped_at = time.monotonic()
        self.runner.send_signal(number)
        self.runner.wait(timeout=TIMEOUT)
        return time.monotonic() - stopped_at


def descendants(pid: int) -> set[int]:
    """Return the ids of all processes below `pid`."""
    table = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = {int(child): int(parent) for child, parent in map(str.split, table.splitlines())}
    found, generation = set[int](), {pid}
    while generation:
        generation = {child for child, parent in parents.items() if parent in generation}
        found |= generation
    return found


def is_running(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout
    return state.strip() != "" and not state.startswith("Z")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], DevelopmentServer]]:
    """Starts the runner, each time in the same folder."""
    servers: list[DevelopmentServer] = []

    def start_server() -> DevelopmentServer:
        server = DevelopmentServer(tmp_path / "instance", free_port())
        servers.append(server)
        server.wait_until_ready()
        return server

    yield start_server
    for server in servers:
        server.end()


@pytest.mark.exhaustive
def test_run_stops_completely_and_keeps_state(start: Callable[[], DevelopmentServer], tmp_path: Path) -> None:
    server = start()
    only = [
        "--destination",
        f"celery@{gethostname()}",
        "--timeout",
        str(TIMEOUT),
    ]  # returns once this worker has answered
    assert "pong" in second_terminal(tmp_path / "instance", "celery", "-A", "celery_app", "inspect", "ping", *only)
    send_mail("kept", server.shared["MAIL_SERVER"], int(server.shared["MAIL_PORT"]))

    seconds = server.end(signal.SIGTERM)

    assert seconds < TIME_TO_END
    assert server.runner.poll() == 0
    assert len(server.processes) > 5
    assert [pid for pid in server.processes if is_running(pid)] == []

    server = start()

    assert [mail["Subject"] for mail in mailbox.Maildir(tmp_path / "instance" / "mail")] == ["kept"]


@pytest.mark.exhaustive
@pytest.mark.timeout(600)  # five programs start a second time
def test_killed_programs_are_started_again(start: Callable[[], DevelopmentServer]) -> None:
    server = start()
    port = int(server.url.rpartition(":")[2])
    programs = ("redis", "mail", "web", "worker", "beat")

    for name in programs:
        server.kill(name)
        wait_for(lambda: web_answers(port, "/readyz"), what=f"everything answers after the end of {name}")

    printed = server.output.read_text()
    for name in programs:
        assert len(re.findall(rf"{name} +ended \(signal SIGKILL\); it is started again in 0.5 s$", printed, re.M)) == 1
    send_mail("accepted", server.shared["MAIL_SERVER"], int(server.shared["MAIL_PORT"]))
    processes = descendants(server.runner.pid)
    assert server.end() < TIME_TO_END
    assert [pid for pid in processes | server.processes if is_running(pid)] == []


@pytest.mark.exhaustive
def test_program_that_cannot_start_ends_run(start: Callable[[], DevelopmentServer]) -> None:
    server = start()
    (server.instance / "mail").rename(server.instance / "moved")
    (server.instance / "mail").symlink_to("nowhere")  # the mail server can neither use nor create it

    os.kill(server.pid("mail"), signal.SIGKILL)

    assert server.runner.wait(TIMEOUT) == 1
    _printed, found, last = server.output.read_text().partition("\nmail ended 5 times in quick succession, ")
    assert found
    assert last.startswith("the last time with exit code 1; it is not started again. Its last output:\n")
    assert "FileExistsError" in last
    assert [pid for pid in server.processes if is_running(pid)] == []


@pytest.mark.exhaustive
def test_start_ends_with_ready_line(start: Callable[[], DevelopmentServer]) -> None:
    *others, last = start().lines_of_start

    assert last.endswith("(sign in as demo, password demo; Ctrl-C ends it)")
    for line in (*others, last):
        assert re.fullmatch(r"\d\d:\d\d:\d\d .{10}  \S.{0,120}", line)
        assert not re.search(r"\{|warning|\033", line, re.IGNORECASE)


def second_terminal(instance: Path, *command: str) -> str:
    """Run a command with ``python -m``, with only the instance folder in its environment; return its output."""
    environment = {"PATH": os.environ["PATH"], "INSTANCE_PATH": str(instance)}
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=2 * TIMEOUT,
    ).stdout


def send_mail(subject: str, server: str, port: int) -> None:
    mail = EmailMessage()
    mail["Subject"] = subject
    with smtplib.SMTP(server, port) as smtp:
        smtp.send_message(mail, "a@example.org", "b@example.org")
