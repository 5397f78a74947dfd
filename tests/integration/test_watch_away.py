"""``flask tasks watch`` while something that it shows is away: it says so, and goes on."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from microblog.accounts.models import User
from microblog.extensions import db
from microblog.taskqueue.launch import launch_task
from tests.support.servers import PATIENCE, Postgres, Worker
from tests.support.terminal import WATCH, Tmux, shows


@pytest.mark.parametrize("database", ["sqlite"])
@pytest.mark.exhaustive
class TestWorkersAway:
    def test_without_a_worker_it_says_that_nothing_will_run(self, terminal: Tmux, app):
        terminal.run(WATCH)

        shows(terminal, "No worker is up: nothing will run.")

    def test_a_worker_that_freezes_is_named(self, terminal: Tmux, make_worker: Callable[..., Worker]) -> None:
        worker = make_worker()
        terminal.run(WATCH)
        shows(terminal, "Workers: 1 up")

        worker.send_signal(signal.SIGSTOP)

        try:
            assert worker.name in shows(terminal, "silent for", PATIENCE)
        finally:
            worker.send_signal(signal.SIGCONT)
        shows(terminal, "Workers: 1 up")


@pytest.mark.exhaustive
class TestDatabaseAway:
    @pytest.mark.parametrize("database", ["postgresql"])
    def test_it_goes_on_with_what_the_workers_tell(
        self,
        terminal: Tmux,
        make_worker: Callable[..., Worker],
        susan: User,
        postgres_server: Postgres,
        database_url: str,
        tmp_path: Path,
    ) -> None:
        make_worker()
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
