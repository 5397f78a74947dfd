"""Main loop of the screen. It starts the threads that fetch the data, and handles keys and actions."""

from __future__ import annotations

import signal
import threading
import time
from dataclasses import replace
from queue import SimpleQueue

from flask import Flask
from rich.console import Console

from microblog.database import DatabaseUnavailable
from microblog.extensions import BROKER_UNAVAILABLE
from microblog.jobs.models import find_job
from microblog.monitoring.actions import apply_to_job
from microblog.monitoring.events import Events, report_thread_crashes
from microblog.monitoring.queues import measure_queues
from microblog.monitoring.status import check_status
from microblog.monitoring.watch.reader import JobReader, Poller
from microblog.monitoring.watch.screen import draw, page_size
from microblog.monitoring.watch.screen_data import ScreenData
from microblog.monitoring.watch.terminal import Terminal
from microblog.monitoring.watch.ui_state import QUIT, Command, UiState
from microblog.monitoring.workers import WorkerReplies

READ_EVERY = 1.0  # seconds, for the Task table and the queues
QUERY_EVERY, QUERY_TIMEOUT = 5.0, 1.0  # seconds, for the workers and the status
DATABASE_TIMEOUT = 3.0  # seconds after which a database that does not respond counts as unavailable
REDRAW_EVERY, SHORTEST_FRAME = 1.0, 0.1  # seconds
NOTICE_SECONDS = 8.0  # seconds that the result of a cancel or a retry stays on the screen


def run_watch(app: Flask, console: Console) -> signal.Signals | None:
    """Show the screen on `console` until the operator quits or a signal arrives; return the signal, or None.

    The terminal is restored in every case. Only unexpected errors are raised.
    """
    crashes: SimpleQueue[BaseException] = SimpleQueue()
    with Terminal(console) as terminal:

        def crash(error: BaseException) -> None:
            crashes.put(error)
            terminal.interrupt_wait()

        with report_thread_crashes(crash):
            loop = _MainLoop(app, terminal)
            loop.start()
            try:
                while loop.run_once():
                    if not crashes.empty():
                        raise crashes.get()
            except EOFError:
                pass  # the terminal is closed
            finally:
                loop.stop()
        return terminal.ended_by


class _MainLoop:
    def __init__(self, app: Flask, terminal: Terminal) -> None:
        self._app = app
        self._terminal = terminal
        self._ui = UiState()
        self._query = self._ui.query()
        self._reader = JobReader()
        self._replies: WorkerReplies | None = None
        self._data = ScreenData(terminal.interrupt_wait, lambda: self._jobs.trigger())
        self._events = Events(app, self._data.handle_event, self._data.set_redis_error)
        self._jobs = Poller(
            app, self._read, interval=READ_EVERY, errors=(DatabaseUnavailable,), notify=self._data.set_database_error
        )
        self._pollers = [
            self._jobs,
            Poller(
                app,
                self._measure,
                interval=READ_EVERY,
                errors=(*BROKER_UNAVAILABLE, DatabaseUnavailable),
                notify=self._handle_queues_error,
            ),
            Poller(app, self._check_status, interval=QUERY_EVERY, errors=(), notify=lambda _: None),
        ]
        self._notice, self._notice_at = "", 0.0
        self._drawn_at = 0.0
        self._changed = True

    def start(self) -> None:
        self._events.start()
        for poller in self._pollers:
            poller.start()
        self._draw()

    def stop(self) -> None:
        self._events.stop()
        for poller in self._pollers:
            poller.stop()

    def run_once(self) -> bool:
        """Wait for an event, handle the keys, and draw; return whether to continue."""
        next_frame = self._drawn_at + (SHORTEST_FRAME if self._changed else REDRAW_EVERY)
        keys = self._terminal.wait(max(0.0, next_frame - time.monotonic()))
        if self._terminal.ended_by is not None or any(not self._press(key) for key in keys):
            return False
        self._changed = True
        if keys or time.monotonic() >= self._drawn_at + SHORTEST_FRAME:
            self._draw()
        return True

    def _press(self, key: str) -> bool:
        arranged = self._ui.arrange(self._data.snapshot(self._query).jobs or ())
        command = self._ui.press(key, arranged)
        if self._ui.query() != self._query:
            self._query = self._ui.query()
            self._jobs.trigger()
        if command is not None and command.action != QUIT:
            self._show_notice("…")
            threading.Thread(target=self._execute, args=(command,), name=command.action, daemon=True).start()
        return command is None or command.action != QUIT

    def _draw(self) -> None:
        if self._jobs.waiting_for() > DATABASE_TIMEOUT:
            self._data.set_database_error("The database does not respond.")
        size = self._terminal.size()
        snapshot = self._data.snapshot(self._query)
        self._ui.page = page_size(snapshot, size[1], self._ui.mode)
        arranged = self._ui.arrange(snapshot.jobs or ())
        notice = self._notice if time.monotonic() < self._notice_at + NOTICE_SECONDS else ""
        self._terminal.draw(draw(snapshot, arranged, self._ui, size, notice))
        self._drawn_at = time.monotonic()
        self._changed = False

    def _read(self) -> None:
        query = replace(self._query, maybe_without_row=self._data.running_tasks())
        self._data.store_result(self._reader.read(query))

    def _measure(self) -> None:
        self._data.store_queues(measure_queues(self._replies))

    def _handle_queues_error(self, error: str | None) -> None:
        if error is not None:
            self._data.store_queues(None)

    def _check_status(self) -> None:
        status = check_status(QUERY_TIMEOUT)
        if status.workers is not None:
            self._replies = status.workers
        self._data.store_status(status)

    def _execute(self, command: Command) -> None:
        """Cancel or retry a job. Runs in its own thread, since Redis and the database may respond slowly."""
        job = command.job
        if job is None:
            return
        with self._app.app_context():
            try:
                found = find_job(job.id)
                if found is None:
                    self._show_notice(f"{job.name} is not a launched job: there is no row to {command.action}.")
                else:
                    outcome = apply_to_job(command.action, found)
                    self._show_notice(f"{job.name} ({job.id[:8]}): {outcome.message}")
            except DatabaseUnavailable:
                self._show_notice(f"{job.name} ({job.id[:8]}): not done, the database does not respond.")
            except BROKER_UNAVAILABLE:
                self._show_notice(f"{job.name} ({job.id[:8]}): not done, Redis does not respond.")
        self._jobs.trigger()

    def _show_notice(self, notice: str) -> None:
        self._notice, self._notice_at = notice, time.monotonic()
        self._terminal.interrupt_wait()
