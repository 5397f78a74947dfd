"""A task that goes exactly as far as a test lets it, and what holds imports in the same way."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from celery import shared_task
from celery.signals import worker_process_init
from flask import current_app

from microblog.imports import importer
from microblog.taskqueue.interface import Progress
from microblog.taskqueue.worker import JobTask

END = 100


@shared_task(name="crank", bind=True, title="Turning the crank")
def crank(self: JobTask, user_id: int, dial: str) -> None:
    """Counts as far as the number in the file `dial`, and on when that grows, until it is END."""
    with Progress(self, END, describe=lambda current, total: f"{current} of {total} turns") as progress:
        while progress.current < END:
            time.sleep(0.01)
            progress.advance(int(Path(dial).read_text()) - progress.current)


class Dial:
    """The test's hand on the crank."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.turn_to(0)

    def turn_to(self, number: int) -> None:
        """Let the task count to `number`; END lets it end."""
        new = self.path.with_suffix(".new")
        new.write_text(str(number))
        new.replace(self.path)  # the task never reads half a number


def hold_of_imports() -> Path:
    """While there is such a file, no import of this site keeps posts."""
    return Path(current_app.instance_path) / "hold-imports"


@worker_process_init.connect
def hold_imports_when_told(**_facts: Any) -> None:
    """Let the processes of the worker look for hold_of_imports()."""
    store = importer.store_posts

    def store_when_let(*args: Any) -> None:
        while hold_of_imports().exists():
            time.sleep(0.01)
        store(*args)

    importer.store_posts = store_when_let
