"""``flask tasks watch`` in a real terminal: it shows, steers, survives, and gives the terminal back."""

from __future__ import annotations

import os
import re
import shlex
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from flask import Flask

from microblog.accounts.models import User
from microblog.extensions import db
from microblog.jobs import job as users_jobs
from microblog.taskqueue import states
from microblog.taskqueue.launch import launch_task
from microblog.taskqueue.models import Task
from microblog.taskqueue.reconcile import reconcile_all
from tests.conftest import IN_CI
from tests.support import programs, tmux
from tests.support.console import flask_tasks, from_nothing
from tests.support.jobs import make_job
from tests.support.programs import ROOT
from tests.support.services import PostgresServer, RedisServer, wait_for
from tests.support.tmux import Tmux

WATCH = shlex.join(from_nothing(flask_tasks("watch")))
MANY = 1_500_000  # posts, whose export takes several seconds on any machine


@pytest.fixture
def terminal(environment: dict[str, str]) -> Iterator[Tmux]:
    """A shell in a terminal, 80 columns by 24 lines."""
    if not tmux.installed():
        if IN_CI:
            pytest.fail("tmux is not installed")
        pytest.skip("tmux is not installed: nobody can watch")
    terminal = Tmux(environment)
    yield terminal
    terminal.stop()


def shows(terminal: Tmux, text: str, timeout: float = 30) -> str:
    """The line with `text`, once it is on the screen."""
    try:
        return wait_for(lambda: terminal.line_with(text), timeout)
    except AssertionError:
        raise AssertionError(f"{text!r} does not come to the screen:\n{terminal.text()}") from None


def no_longer_shows(terminal: Tmux, text: str) -> None:
    wait_for(lambda: not terminal.line_with(text), 30, f"{text!r} gone from the screen")


def exit_code(terminal: Tmux) -> int:
    """What the shell says of a command behind which was typed: ; echo "exit code: $?"."""
    found = wait_for(lambda: re.search(r"^exit code: (\d+)$", terminal.text(), re.M), 30, "an exit code")
    return int(found[1])


def write_posts(user: User, number: int) -> None:
    """Posts by the database alone: whatever makes them one by one would take minutes."""
    db.session.execute(
        sa.text(
            "INSERT INTO post (user_id, body, timestamp) "
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :number) "
            "SELECT :user_id, 'Post number ' || i, '2026-01-01 00:00:00.000000' FROM n"
        ),
        {"number": number, "user_id": user.id},
    )
    db.session.commit()


def export(user: User) -> str:
    user.launch_task("export_posts", "Exporting your posts")
    db.session.commit()
    return user.get_tasks_in_progress()[0].root_id


def state_of(job_id: str) -> str:
    db.session.rollback()
    job = users_jobs.find(job_id)
    assert job is not None
    return job.state


def share(terminal: Tmux) -> int:
    """How far the bar of the export on the screen is, in per cent; 0 if there is none."""
    found = re.search(r"PROGRESS .*export_posts.*━.* (\d+)%", terminal.text())
    return int(found[1]) if found else 0


def moves(terminal: Tmux) -> None:
    """Return once the bar has moved."""
    shows(terminal, "PROGRESS susan")
    before = wait_for(lambda: share(terminal), 30, "a bar")
    wait_for(lambda: share(terminal) > before, 30, f"a bar beyond {before} %")


@pytest.mark.parametrize("database", ["sqlite"])
class TestTheScreen:
    def test_it_shows_an_exports_bar_moving_cancels_it_by_key_and_outlives_a_restart_of_redis(
        self, app: Flask, terminal: Tmux, worker, susan, redis_server: RedisServer
    ):
        write_posts(susan, MANY)
        terminal.run(WATCH)
        shows(terminal, "Workers: 1 up")
        assert worker.name in terminal.text()

        first = export(susan)
        moves(terminal)
        terminal.press("c")
        shows(terminal, f"Cancel export_posts of susan ({first[:8]})? y/n")
        terminal.press("y")
        shows(terminal, "REVOKED")
        assert state_of(first) == states.REVOKED

        with redis_server.away():
            shows(terminal, "Redis is away")
            second = export(susan)
            shows(terminal, "waiting in exports")  # the database tells
        shows(terminal, "Redis up")
        wait_for(lambda: (reconcile_all(), share(terminal))[1], 40, "the export runs")
        moves(terminal)
        terminal.press("Home", "c")
        shows(terminal, f"Cancel export_posts of susan ({second[:8]})? y/n")
        terminal.press("y")
        wait_for(lambda: state_of(second) == states.REVOKED, what="the second export is cancelled")
        shows(terminal, "Workers: 1 up")
        assert "Traceback" not in terminal.text()

    def test_a_failed_job_is_found_opened_and_tried_again(self, terminal: Tmux, worker, susan):
        failed = make_job(susan, "FAILURE", "FAILURE", error="The moon is in the wrong house.")
        terminal.run(WATCH)
        shows(terminal, "Workers: 1 up")

        terminal.press("Tab")
        shows(terminal, "Jobs: failed")
        shows(terminal, "The moon is in")
        terminal.press("Enter")
        shows(terminal, "Error      The moon is in the wrong house.")
        terminal.press("r", "y")
        shows(terminal, "tried again as")

        def again() -> str | None:
            db.session.rollback()
            return db.session.scalar(sa.select(Task.state).where(Task.retried_from == failed))

        wait_for(lambda: again() == states.SUCCESS, what="the new job has run")

    def test_what_cannot_be_tried_again_is_a_sentence(self, terminal: Tmux, susan):
        make_job(susan, "FAILURE", name="a_task_of_long_ago")
        terminal.run(WATCH)
        terminal.press("Tab")
        shows(terminal, "FAILURE  susan")

        terminal.press("r", "y")

        shows(terminal, "This kind of job no longer exists.")

    def test_a_filter_narrows_the_list_and_the_help_covers_it(self, terminal: Tmux, susan, make_user):
        for user in (susan, make_user("david")):
            export(user)
        terminal.run(WATCH)
        shows(terminal, "susan")
        shows(terminal, "david")

        terminal.press("/", *"dav", "Enter")
        no_longer_shows(terminal, "PENDING  susan")
        assert terminal.line_with("david")
        terminal.press("?")
        shows(terminal, "draw the screen anew")
        terminal.press("Escape")
        shows(terminal, "filter: dav")
        terminal.press("Escape")
        shows(terminal, "susan")

    def test_without_a_worker_it_says_that_nothing_will_run(self, terminal: Tmux, app):
        terminal.run(WATCH)

        shows(terminal, "No worker is up: nothing will run.")

    def test_a_worker_that_freezes_is_named(self, terminal: Tmux, worker):
        terminal.run(WATCH)
        shows(terminal, "Workers: 1 up")

        worker.send_signal(signal.SIGSTOP)

        try:
            assert worker.name in shows(terminal, "silent for", 40)
        finally:
            worker.send_signal(signal.SIGCONT)
        shows(terminal, "Workers: 1 up")

    def test_it_follows_the_size_of_the_terminal(self, terminal: Tmux, susan):
        job = export(susan)
        terminal.run(WATCH)
        shows(terminal, "waiting in exports")
        assert "WORKER" not in terminal.text()

        terminal.resize(140, 40)
        shows(terminal, "WORKER")
        lines = terminal.text().rstrip("\n").splitlines()
        assert job[:8] in terminal.text()
        assert (len(lines), len(lines[-3])) == (40, 140), "it reaches into each corner"

        terminal.resize(80, 24)
        no_longer_shows(terminal, "WORKER")
        assert len(terminal.text().rstrip("\n").splitlines()) == 24

        terminal.resize(40, 10)
        shows(terminal, "This terminal has 40×10")


class TestDatabaseAway:
    @pytest.mark.parametrize("database", ["postgresql"])
    def test_it_goes_on_with_what_the_workers_tell(
        self, terminal: Tmux, worker, susan, postgres_server: PostgresServer, database_url: str, tmp_path: Path
    ):
        launch_task("count", "Counting", str(tmp_path / "gate"), user_id=susan.id)
        db.session.commit()
        terminal.run(WATCH)
        shows(terminal, "PROGRESS susan")

        with postgres_server.closed(database_url.rpartition("/")[2]):
            shows(terminal, "Database is away")
            shows(terminal, "Workers: 1 up")
            shows(terminal, "PROGRESS susan")
            terminal.press("c", "y")
            shows(terminal, "not done, the database does not answer")
        shows(terminal, "Database up")
        terminal.press("c", "y")
        shows(terminal, "REVOKED")


@pytest.mark.parametrize("database", ["sqlite"])
class TestTheTerminalAfterwards:
    def settings(self, terminal: Tmux, tmp_path: Path, name: str) -> str:
        terminal.run(f"stty -a > {tmp_path}/{name}; echo {name} no''ted")
        shows(terminal, f"{name} noted")
        return (tmp_path / name).read_text()

    def assert_given_back(self, terminal: Tmux, before: str, after: str) -> None:
        assert after == before
        assert terminal.ask("alternate_on") == "0"
        assert terminal.ask("cursor_flag") == "1"

    @pytest.mark.parametrize(
        ("how", "code"), [("q", 0), ("C-c", 0), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGQUIT, 131)]
    )
    def test_it_is_as_it_was(self, terminal: Tmux, app, tmp_path: Path, how, code):
        before = self.settings(terminal, tmp_path, "before")
        terminal.run(f"sh -c 'echo $$ > {tmp_path}/pid; exec {WATCH}'; echo \"exit code: $?\"")
        shows(terminal, "Database up")
        assert terminal.ask("alternate_on") == "1"

        if isinstance(how, signal.Signals):
            os.kill(int((tmp_path / "pid").read_text()), how)
        else:
            terminal.press(how)

        assert exit_code(terminal) == code
        assert terminal.line_with("before noted"), "what was on the screen is there again"
        self.assert_given_back(terminal, before, self.settings(terminal, tmp_path, "after"))

    def test_ctrl_z_gives_it_to_the_shell_and_takes_it_again(self, terminal: Tmux, app, tmp_path: Path):
        before = self.settings(terminal, tmp_path, "before")
        terminal.run(WATCH)
        shows(terminal, "Database up")

        terminal.press("C-z")

        wait_for(lambda: terminal.ask("alternate_on") == "0", what="the shell's screen")
        self.assert_given_back(terminal, before, self.settings(terminal, tmp_path, "after"))
        terminal.run("fg")
        shows(terminal, "Database up")
        terminal.press("q")
        wait_for(lambda: terminal.ask("alternate_on") == "0", what="the shell's screen")

    def test_after_a_crash_it_is_as_it_was_and_the_error_can_be_read(self, terminal: Tmux, app, tmp_path: Path):
        crash = (
            "from rich.console import Console; from microblog.monitoring.watch.terminal import Terminal\n"
            "with Terminal(Console()) as terminal: terminal.draw('drawn'); raise RuntimeError('it broke')"
        )
        (tmp_path / "crash.py").write_text(crash)
        before = self.settings(terminal, tmp_path, "before")

        terminal.run(f"PYTHONPATH={ROOT} {sys.executable} {tmp_path}/crash.py")

        shows(terminal, "RuntimeError: it broke")
        self.assert_given_back(terminal, before, self.settings(terminal, tmp_path, "after"))

    def test_a_thread_that_breaks_ends_it_with_the_error(self, terminal: Tmux, app, tmp_path: Path):
        """Nobody would notice that what is on the screen is no longer fed."""
        breaking = (
            "from rich.console import Console; from microblog import create_app\n"
            "from microblog.monitoring.watch import console\n"
            "console.queues.measure = lambda answers: 1 / 0\n"
            "console.watch(create_app(), Console())"
        )
        (tmp_path / "breaking.py").write_text(breaking)
        before = self.settings(terminal, tmp_path, "before")

        terminal.run(f"PYTHONPATH={ROOT} {sys.executable} {tmp_path}/breaking.py")

        shows(terminal, "ZeroDivisionError")
        self.assert_given_back(terminal, before, self.settings(terminal, tmp_path, "after"))


@pytest.mark.parametrize("database", ["sqlite"])
class TestWithoutATerminal:
    def test_it_is_a_sentence_and_exit_code_2(self, app, environment):
        result = programs.run(flask_tasks("watch"), environment)

        assert (result.returncode, result.stdout) == (2, "")
        assert "watch needs a terminal" in result.stderr

    def test_a_terminal_that_cannot_be_drawn_on_is_none(self, terminal: Tmux, app):
        terminal.run(f'TERM=dumb {WATCH}; echo "exit code: $?"')

        shows(terminal, "watch needs a terminal")
        assert exit_code(terminal) == 2
