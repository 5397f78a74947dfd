"""``flask tasks watch`` restores the terminal when it ends, and refuses one that it cannot draw on."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from flask import Flask

from tests.support import programs
from tests.support.console import flask_tasks
from tests.support.programs import ROOT
from tests.support.servers import wait_for
from tests.support.terminal import WATCH, Tmux, exit_code, shows


@pytest.mark.parametrize("database", ["sqlite"])
@pytest.mark.exhaustive
class TestTerminalRestored:
    def settings(self, terminal: Tmux, tmp_path: Path, name: str) -> str:
        terminal.run(f"stty -a > {tmp_path}/{name}; echo {name} no''ted")
        shows(terminal, f"{name} noted")
        return (tmp_path / name).read_text()

    def assert_restored(self, terminal: Tmux, before: str, after: str) -> None:
        assert after == before
        assert terminal.ask("alternate_on") == "0"
        assert terminal.ask("cursor_flag") == "1"

    @pytest.mark.parametrize(
        ("action", "code"), [("q", 0), ("C-c", 0), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGQUIT, 131)]
    )
    def test_terminal_is_restored_on_exit(
        self, terminal: Tmux, app: Flask, tmp_path: Path, action: str | signal.Signals, code: int
    ) -> None:
        before = self.settings(terminal, tmp_path, "before")
        terminal.run(f"sh -c 'echo $$ > {tmp_path}/pid; exec {WATCH}'; echo \"exit code: $?\"")
        shows(terminal, "Database up")
        assert terminal.ask("alternate_on") == "1"

        if isinstance(action, signal.Signals):
            os.kill(int((tmp_path / "pid").read_text()), action)
        else:
            terminal.press(action)

        assert exit_code(terminal) == code
        assert terminal.line_with("before noted"), "the previous screen is restored"
        self.assert_restored(terminal, before, self.settings(terminal, tmp_path, "after"))

    def test_suspended_watch_restores_terminal_until_resumed(self, terminal: Tmux, app: Flask, tmp_path: Path) -> None:
        before = self.settings(terminal, tmp_path, "before")
        terminal.run(WATCH)
        shows(terminal, "Database up")

        terminal.press("C-z")

        wait_for(lambda: terminal.ask("alternate_on") == "0", what="the shell's screen")
        self.assert_restored(terminal, before, self.settings(terminal, tmp_path, "after"))
        terminal.run("fg")
        shows(terminal, "Database up")
        terminal.press("q")
        wait_for(lambda: terminal.ask("alternate_on") == "0", what="the shell's screen")

    def test_terminal_is_restored_after_crash(self, terminal: Tmux, app: Flask, tmp_path: Path) -> None:
        crash = (
            "from rich.console import Console; from microblog.monitoring.watch.terminal import Terminal\n"
            "with Terminal(Console()) as terminal: terminal.draw('drawn'); raise RuntimeError('it broke')"
        )
        (tmp_path / "crash.py").write_text(crash)
        before = self.settings(terminal, tmp_path, "before")

        terminal.run(f"PYTHONPATH={ROOT} {sys.executable} {tmp_path}/crash.py")

        shows(terminal, "RuntimeError: it broke")
        self.assert_restored(terminal, before, self.settings(terminal, tmp_path, "after"))

    def test_failed_thread_ends_watch_with_error(self, terminal: Tmux, app: Flask, tmp_path: Path) -> None:
        """If watch did not end, the screen would silently stop being updated."""
        script = (
            "from rich.console import Console; from microblog import create_app\n"
            "from microblog.monitoring.watch import main_loop\n"
            "main_loop.measure_queues = lambda answers: 1 / 0\n"
            "main_loop.run_watch(create_app(), Console())"
        )
        (tmp_path / "breaking.py").write_text(script)
        before = self.settings(terminal, tmp_path, "before")

        terminal.run(f"PYTHONPATH={ROOT} {sys.executable} {tmp_path}/breaking.py")

        shows(terminal, "ZeroDivisionError")
        self.assert_restored(terminal, before, self.settings(terminal, tmp_path, "after"))


@pytest.mark.parametrize("database", ["sqlite"])
class TestWithoutTerminal:
    def test_watch_exits_with_2(self, app: Flask, environment: dict[str, str]) -> None:
        result = programs.run(flask_tasks("watch"), environment)

        assert (result.returncode, result.stdout) == (2, "")
        assert "watch needs a terminal" in result.stderr

    @pytest.mark.exhaustive
    def test_dumb_terminal_is_refused(self, terminal: Tmux, app: Flask) -> None:
        terminal.run(f'TERM=dumb {WATCH}; echo "exit code: $?"')

        shows(terminal, "watch needs a terminal")
        assert exit_code(terminal) == 2
