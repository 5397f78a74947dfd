"""``flask tasks watch`` in a real terminal: what it displays, and the actions of its keys."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable

import pytest
import sqlalchemy as sa
from flask import Flask

from microblog.accounts.models import User
from microblog.extensions import db
from microblog.taskqueue import states
from microblog.taskqueue.models import Task
from microblog.taskqueue.reconcile import reconcile_all
from tests.support.factories import make_job, state_of
from tests.support.servers import RedisServer, Worker, wait_for
from tests.support.terminal import WATCH, Tmux, shows, wait_until_gone

MANY = 500_000  # posts: their export takes many of the time slices for which the worker runs
SLICE, PAUSE = 0.05, 0.1  # seconds for which the worker runs, then is stopped, so that the screen can keep up


def write_many_posts(user: User, number: int) -> None:
    """Insert posts with one statement; creating them one by one would take minutes."""
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


def percentage(terminal: Tmux) -> int:
    """Return the percentage on the export's progress bar, 0 if there is no bar."""
    match = re.search(r"PROGRESS .*export_posts.*━.* (\d+)%", terminal.text())
    return int(match[1]) if match else 0


def wait_until_bar_moves(terminal: Tmux, worker: Worker) -> None:
    """Return once the bar has moved. The worker is then stopped, so that the export does not end meanwhile."""
    start = run_until(lambda: percentage(terminal), worker, "a bar")
    run_until(lambda: percentage(terminal) > start, worker, f"a bar beyond {start} %")
    shows(terminal, "PROGRESS susan")


def run_until(condition: Callable[[], int], worker: Worker, what: str) -> int:
    """Run the worker for one time slice after the other until `condition` returns a true value; return that value."""

    def run() -> int:
        worker.send_signal(signal.SIGCONT)
        time.sleep(SLICE)
        worker.send_signal(signal.SIGSTOP)
        time.sleep(PAUSE)
        return condition()

    return wait_for(run, what=what)


def is_cancel_requested(job_id: str) -> bool:
    db.session.rollback()
    return db.session.scalar(sa.select(Task.cancel_requested_at).where(Task.id == job_id)) is not None


@pytest.mark.parametrize("database", ["sqlite"])
class TestScreen:
    @pytest.mark.exhaustive
    def test_watch_shows_progress_cancels_and_survives_redis_restart(
        self, app: Flask, terminal: Tmux, make_worker: Callable[..., Worker], susan: User, redis_server: RedisServer
    ) -> None:
        worker = make_worker(TASK_LEASE="60")
        write_many_posts(susan, MANY)
        terminal.run(WATCH)
        shows(terminal, "Workers: 1 up")
        shows(terminal, worker.name)

        first = export(susan)
        wait_until_bar_moves(terminal, worker)
        terminal.press("c")
        shows(terminal, f"Cancel export_posts of susan ({first[:8]})? y/n")
        terminal.press("y")
        wait_for(lambda: is_cancel_requested(first), what="the cancellation is requested")
        worker.send_signal(signal.SIGCONT)
        shows(terminal, "REVOKED")
        assert state_of(first) == states.REVOKED

        with redis_server.stopped():
            shows(terminal, "Redis is down")
            second = export(susan)
            shows(terminal, "waiting in exports")  # read from the database
        shows(terminal, "Redis up")
        run_until(lambda: (reconcile_all(), percentage(terminal))[1], worker, "the export runs")
        wait_until_bar_moves(terminal, worker)
        terminal.press("Home", "c")
        shows(terminal, f"Cancel export_posts of susan ({second[:8]})? y/n")
        terminal.press("y")
        wait_for(lambda: is_cancel_requested(second), what="the cancellation of the second export is requested")
        worker.send_signal(signal.SIGCONT)
        wait_for(lambda: state_of(second) == states.REVOKED, what="the second export is cancelled")
        shows(terminal, "Workers: 1 up")
        assert "Traceback" not in terminal.text()

    def test_failed_job_is_opened_and_retried(self, terminal: Tmux, worker: Worker, susan: User) -> None:
        failed = make_job(susan, "FAILURE", "FAILURE", error="The moon is in the wrong house.")
        terminal.run(WATCH)
        shows(terminal, "Workers: 1 up")

        terminal.press("Tab")
        shows(terminal, "Jobs: failed")
        shows(terminal, "The moon is in")
        terminal.press("Enter")
        shows(terminal, "Error      The moon is in the wrong house.")
        terminal.press("r", "y")
        shows(terminal, "retried as")

        def retry_state() -> str | None:
            db.session.rollback()
            return db.session.scalar(sa.select(Task.state).where(Task.retried_from == failed))

        wait_for(lambda: retry_state() == states.SUCCESS, what="the new job has run")

    @pytest.mark.exhaustive
    def test_retry_of_unknown_task_shows_reason(self, terminal: Tmux, susan: User) -> None:
        make_job(susan, "FAILURE", name="a_task_of_long_ago")
        terminal.run(WATCH)
        terminal.press("Tab")
        shows(terminal, "FAILURE  susan")

        terminal.press("r", "y")

        shows(terminal, "This kind of job no longer exists.")

    @pytest.mark.exhaustive
    def test_filter_and_help_overlay(self, terminal: Tmux, susan: User, make_user: Callable[..., User]) -> None:
        for user in (susan, make_user("david")):
            export(user)
        terminal.run(WATCH)
        shows(terminal, "susan")
        shows(terminal, "david")

        terminal.press("/", *"dav", "Enter")
        wait_until_gone(terminal, "PENDING  susan")
        assert terminal.line_with("david")
        terminal.press("?")
        shows(terminal, "redraw the screen")
        terminal.press("Escape")
        shows(terminal, "filter: dav")
        terminal.press("Escape")
        shows(terminal, "susan")

    @pytest.mark.exhaustive
    def test_screen_follows_terminal_size(self, terminal: Tmux, susan: User) -> None:
        job = export(susan)
        terminal.run(WATCH)
        shows(terminal, "waiting in exports")
        assert "WORKER" not in terminal.text()

        def lines() -> list[str]:
            return terminal.text().rstrip("\n").splitlines()

        def fills(columns: int, rows: int) -> bool:
            return (len(rows_shown := lines()), len(rows_shown[-3])) == (rows, columns)

        terminal.resize(140, 40)
        shows(terminal, "WORKER")
        wait_for(lambda: fills(140, 40), what="the screen fills the terminal")
        shows(terminal, job[:8])

        terminal.resize(80, 24)
        wait_until_gone(terminal, "WORKER")
        wait_for(lambda: len(lines()) == 24, what="the screen is as high as the terminal")

        terminal.resize(40, 10)
        shows(terminal, "This terminal has 40×10")
