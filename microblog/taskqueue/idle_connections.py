"""A worker's child process keeps no database connection while it has no task."""

from __future__ import annotations

import threading
from typing import Any

import sqlalchemy as sa
from celery import signals
from flask import Flask

from microblog.extensions import db

IDLE = 1.0  # seconds after the end of a task; a process with the next task by then keeps its connection


def init_app(app: Flask) -> None:
    """Let the child processes of a worker close the connections of the app's database."""
    with app.app_context():
        engine = db.engine
    signals.worker_process_init.connect(lambda **_: _begin(engine), weak=False)


def _begin(engine: sa.Engine) -> None:
    engine.dispose(close=False)  # what was open when this process was forked belongs to the parent
    busy, ended = threading.Event(), threading.Event()

    def end(**_: Any) -> None:
        busy.clear()
        ended.set()

    signals.task_prerun.connect(lambda **_: busy.set(), weak=False)
    signals.task_postrun.connect(end, weak=False)
    threading.Thread(target=_close_idle, args=(engine, busy, ended), name="idle-connections", daemon=True).start()


def _close_idle(engine: sa.Engine, busy: threading.Event, ended: threading.Event) -> None:
    while ended.wait():
        ended.clear()
        if not busy.wait(IDLE):
            engine.dispose()
