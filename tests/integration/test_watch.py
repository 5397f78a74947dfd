"""``flask tasks watch`` in a real terminal: it shows, and it steers."""

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
from microblog.jobs.models import find_job
from microblog.taskqueue import states
from microblog.taskqueue.models import Task
from microblog.taskqueue.reconcile import reconcile_all
from tests.support.factories import make_job
from tests.support.servers import RedisServer, Worker, wait_for
from tests.support.terminal import WATCH, Tmux, no_longer_shows, shows

MANY = 500_000  # posts, whose export takes many of the moments for which the worker is let run
MOMENT, PAUSE = 0.05, 0.1  # seconds for which it is, and for which it then stands still: the screen can keep up


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
    job = find_job(job_id)
    assert job is not None
    return job.state


def share(terminal: Tmux) -> int:
    """How far the bar of the export on the screen is, in per cent; 0 if there is none."""
    found = re.search(r"PROGRESS .*export_posts.*━.* (\d+)%", terminal.text())
    return int(found[1]) if found else 0


def moves(terminal: Tmux, worker: Worker) -> None:
    """Return once the bar has moved; then the worker stands still, so that the export does not end meanwhile."""
    before = run_until(lambda: share(terminal), worker, "a bar")
    run_until(lambda: share(terminal) > before, worker, f"a bar beyond {before} %")
    shows(terminal, "PROGRESS susan")


def run_until(condition: Callable[[], int], worker: Worker, what: str) -> int:
    """Let the worker run for a moment at a time until there is a true value of `condition`; return that."""

    def run() -> int:
        worker.send_signal(signal.SIGCONT)
        time.sleep(MOMENT)
        worker.send_signal(signal.SIGSTOP)
        time.sleep(PAUSE)
        return condition()

    return wait_for(run, what=what)


def is_to_be_cancelled(job_id: str) -> bool:
    db.session.rollback()
    return db.session.scalar(sa.select(Task.cancel_requested_at).where(Task.id == job_id)) is not None


@pytest.mark.parametrize("database", ["sqlite"])
class TestTheScreen:
    @pytest.mark.exhaustive
    def test_it_shows_an_exports_bar_moving_cancels_it_by_key_and_outlives_a_restart_of_redis(
        self, app: Flask, terminal: Tmux, make_worker: Callable[..., Worker], susan: User, redis_server: RedisServer
    ) -> None:
        worker = make_worker(TASK_LEASE="60")
        write_posts(susan, MANY)
        terminal.run(WATCH)
        shows(terminal, "Workers: 1 up")
        shows(terminal, worker.name)

        first = export(susan)
        moves(terminal, worker)
        terminal.press("c")
        shows(terminal, f"Cancel export_posts of susan ({first[:8]})? y/n")
        terminal.press("y")
        wait_for(lambda: is_to_be_cancelled(first), what="the cancellation is asked for")
        worker.send_signal(signal.SIGCONT)
        shows(terminal, "REVOKED")
        assert state_of(first) == states.REVOKED

        with redis_server.away():
            shows(terminal, "Redis is away")
            second = export(susan)
            shows(terminal, "waiting in exports")  # the database tells
        shows(terminal, "Redis up")
        run_until(lambda: (reconcile_all(), share(terminal))[1], worker, "the export runs")
        moves(terminal, worker)
        terminal.press("Home", "c")
        shows(terminal, f"Cancel export_posts of susan ({second[:8]})? y/n")
        terminal.press("y")
        wait_for(lambda: is_to_be_cancelled(second), what="the cancellation of the second is asked for")
        worker.send_signal(signal.SIGCONT)
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

    @pytest.mark.exhaustive
    def test_what_cannot_be_tried_again_is_a_sentence(self, terminal: Tmux, susan):
        make_job(susan, "FAILURE", name="a_task_of_long_ago")
        terminal.run(WATCH)
        terminal.press("Tab")
        shows(terminal, "FAILURE  susan")

        terminal.press("r", "y")

        shows(terminal, "This kind of job no longer exists.")

    @pytest.mark.exhaustive
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

    @pytest.mark.exhaustive
    def test_it_follows_the_size_of_the_terminal(self, terminal: Tmux, susan):
        job = export(susan)
        terminal.run(WATCH)
        shows(terminal, "waiting in exports")
        assert "WORKER" not in terminal.text()

        def lines() -> list[str]:
            return terminal.text().rstrip("\n").splitlines()

        def fills(columns: int, rows: int) -> bool:
            return (len(found := lines()), len(found[-3])) == (rows, columns)

        terminal.resize(140, 40)
        shows(terminal, "WORKER")
        wait_for(lambda: fills(140, 40), what="it reaches into each corner")
        shows(terminal, job[:8])

        terminal.resize(80, 24)
        no_longer_shows(terminal, "WORKER")
        wait_for(lambda: len(lines()) == 24, what="it is as high as the terminal")

        terminal.resize(40, 10)
        shows(terminal, "This terminal has 40×10")
