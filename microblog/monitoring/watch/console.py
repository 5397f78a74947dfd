"""Main loop of the screen: threads that listen and read, keys, and actions."""

from __future__ import annotations

import signal
import threading
import time
from dataclasses import replace
from queue import SimpleQueue

from flask import Flask
from rich.console import Console
from sqlalchemy.exc import TimeoutError as NoConnection

from microblog.database import DatabaseUnavailable
from microblog.extensions import BROKER_UNAVAILABLE
from microblog.jobs.models import find_job
from microblog.monitoring.actions import cancel_with_reason, retry_with_reason
from microblog.monitoring.events import Events, crashes_of_threads
from microblog.monitoring.queues import measure_queues
from microblog.monitoring.watch.board import Board
from microblog.monitoring.watch.choices import CANCEL, QUIT, Choices, Command
from microblog.monitoring.watch.poller import Poller
from microblog.monitoring.watch.reader import JobReader
from microblog.monitoring.watch.screen import draw, page
from microblog.monitoring.watch.terminal import Terminal
from microblog.monitoring.workers import WorkerReplies, query_workers

READ_EVERY = 1.0  # seconds, for the Task table and the queues
ASK_EVERY, ASK_TIMEOUT = 5.0, 1.0  # seconds, for the workers
PATIENCE = 3.0  # seconds until a database that has not answered counts as away
REDRAW_EVERY, SHORTEST_FRAME = 1.0, 0.1  # seconds
NOTICE_FOR = 8.0  # seconds that what became of a cancel or a retry stays on the screen

NO_DATABASE = (DatabaseUnavailable, NoConnection)


def watch(app: Flask, console: Console) -> signal.Signals | None:
    """Show the screen on `console` until the operator quits or a signal comes; returns that signal, if it was one.

    The terminal is as it was before, also if this raises: which it does only for what nobody expected.
    """
    crashes: SimpleQueue[BaseException] = SimpleQueue()
    with Terminal(console) as terminal:

        def crash(error: BaseException) -> None:
            crashes.put(error)
            terminal.wake()

        with crashes_of_threads(crash):
            loop = _Loop(app, terminal)
            loop.start()
            try:
                while loop.turn():
                    if not crashes.empty():
                        raise crashes.get()
            except EOFError:
                pass  # the terminal has gone
            finally:
                loop.stop()
        return terminal.ended_by


class _Loop:
    def __init__(self, app: Flask, terminal: Terminal) -> None:
        self._app = app
        self._terminal = terminal
        self._choices = Choices()
        self._wanted = self._choices.wanted()
        self._reader = JobReader()
        self._answers: WorkerReplies | None = None
        self._board = Board(terminal.wake, lambda: self._jobs.poke())
        self._events = Events(app, self._board.hear, self._board.redis_is)
        self._jobs = Poller(app, self._read, interval=READ_EVERY, away=NO_DATABASE, tell=self._board.database_is)
        self._others = [
            Poller(
                app,
                self._measure,
                interval=READ_EVERY,
                away=BROKER_UNAVAILABLE + NO_DATABASE,
                tell=self._measured,
            ),
            Poller(app, self._ask, interval=ASK_EVERY, away=BROKER_UNAVAILABLE, tell=lambda error: None),
        ]
        self._notice, self._noticed_at = "", 0.0
        self._drawn_at = 0.0
        self._changed = True

    def start(self) -> None:
        self._events.start()
        for poller in (self._jobs, *self._others):
            poller.start()
        self._draw()

    def stop(self) -> None:
        self._events.stop()
        for poller in (self._jobs, *self._others):
            poller.stop()

    def turn(self) -> bool:
        """Wait for something to happen, act on the keys, draw; returns whether to go on."""
        next_frame = self._drawn_at + (SHORTEST_FRAME if self._changed else REDRAW_EVERY)
        keys = self._terminal.wait(max(0.0, next_frame - time.monotonic()))
        if self._terminal.ended_by is not None or any(not self._press(key) for key in keys):
            return False
        self._changed = True
        if keys or time.monotonic() >= self._drawn_at + SHORTEST_FRAME:
            self._draw()
        return True

    def _press(self, key: str) -> bool:
        arranged = self._choices.arrange(self._board.snapshot(self._wanted).jobs or ())
        command = self._choices.press(key, arranged)
        if self._choices.wanted() != self._wanted:
            self._wanted = self._choices.wanted()
            self._jobs.poke()
        if command is not None and command.what != QUIT:
            self._say("…")
            threading.Thread(target=self._obey, args=(command,), name=command.what, daemon=True).start()
        return command is None or command.what != QUIT

    def _draw(self) -> None:
        if self._jobs.waiting_for() > PATIENCE:
            self._board.database_is("It does not answer.")
        size = self._terminal.size()
        snapshot = self._board.snapshot(self._wanted)
        self._choices.page = page(snapshot, size[1], self._choices.mode)
        arranged = self._choices.arrange(snapshot.jobs or ())
        notice = self._notice if time.monotonic() < self._noticed_at + NOTICE_FOR else ""
        self._terminal.draw(draw(snapshot, arranged, self._choices, size, notice))
        self._drawn_at = time.monotonic()
        self._changed = False

    def _read(self) -> None:
        wanted = replace(self._wanted, maybe_without_row=self._board.running_tasks())
        self._board.read(self._reader.read(wanted))

    def _measure(self) -> None:
        self._board.measured(measure_queues(self._answers))

    def _measured(self, error: str | None) -> None:
        if error is not None:
            self._board.measured(None)

    def _ask(self) -> None:
        self._answers = query_workers(ASK_TIMEOUT)
        self._board.asked(self._answers)

    def _obey(self, command: Command) -> None:
        """Cancel or retry a job, in a thread of its own, since that may take as long as Redis and the database do."""
        job = command.job
        if job is None:
            return
        with self._app.app_context():
            try:
                found = find_job(job.id)
                if found is None:
                    self._say(f"{job.name} is none of the launched jobs: there is no row to {command.what}.")
                else:
                    outcome = cancel_with_reason(found) if command.what == CANCEL else retry_with_reason(found)
                    self._say(f"{job.name} ({job.id[:8]}): {outcome.sentence}")
            except NO_DATABASE:
                self._say(f"{job.name} ({job.id[:8]}): not done, the database does not answer.")
            except BROKER_UNAVAILABLE:
                self._say(f"{job.name} ({job.id[:8]}): not done, Redis does not answer.")
        self._jobs.poke()

    def _say(self, notice: str) -> None:
        self._notice, self._noticed_at = notice, time.monotonic()
        self._terminal.wake()
