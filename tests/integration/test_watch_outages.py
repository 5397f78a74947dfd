"""``flask tasks watch`` during outages: it reports what is unavailable, and continues."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask

from microblog.accounts.models import User
from microblog.extensions import db
from microblog.taskqueue.launch import launch_task
from tests.support.servers import TIMEOUT, Postgres, Worker
from tests.support.terminal import WATCH, Tmux, shows


@pytest.mark.parametrize("database", ["sqlite"])
@pytest.mark.exhaustive
class TestWorkersUnavailable:
    def test_missing_worker_is_reported(self, terminal: Tmux, app: Flask) -> None:
        terminal.run(WATCH)

        shows(terminal, "No worker is up: nothing will run.")

    def test_frozen_worker_is_named(self, terminal: Tmux, make_worker: Callable[..., Worker]) -> None:
        worker = make_worker()
        terminal.run(WATCH)
        shows(terminal, "Workers: 1 up")

        worker.send_signal(signal.SIGSTOP)

        try:
            assert worker.name in shows(terminal, "silent for", TIMEOUT)
        finally:
            worker.send_signal(signal.SIGCONT)
        shows(terminal, "Workers: 1 up")


@pytest.mark.exhaustive
class TestDatabaseUnavailable:
    @pytest.mark.parametrize("database", ["postgresql"])
    def test_watch_continues_with_worker_events(
        self,
        terminal: Tmux,
        make_worker: Callable[..., Worker],
        susan: User,
        postgres_server: Postgres,
        database_url: str,
        tmp_path: Path,
    ) -> None:
        make_worker()
        launch_task("count", "Counting", str(tmp_path / "release"), user_id=susan.id)
        db.session.commit()
        terminal.run(WATCH)
        shows(terminal, "PROGRESS susan")

        with postgres_server.closed(database_url.rpartition("/")[2]):
            shows(terminal, "Database is down")
            shows(terminal, "Workers: 1 up")
            shows(terminal, "PROGRESS susan")
            terminal.press("c", "y")
            shows(terminal, "not done, the database does not respond")
        shows(terminal, "Database up")
        terminal.press("c", "y")
        shows(terminal, "REVOKED")
