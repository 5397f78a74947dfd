"""A task whose progress a test controls, and a way to hold imports."""

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
    """Advance to the number in the file `dial` whenever it grows, until it is END."""
    with Progress(self, END, describe=lambda current, total: f"{current} of {total} turns") as progress:
        while progress.current < END:
            time.sleep(0.01)
            progress.advance(int(Path(dial).read_text()) - progress.current)


class Dial:
    """The file by which a test controls the progress of a `crank` task."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.turn_to(0)

    def turn_to(self, number: int) -> None:
        """Let the task advance to `number`, or end if it is END."""
        new = self.path.with_suffix(".new")
        new.write_text(str(number))
        new.replace(self.path)  # atomic: the task never reads a partial number


def import_hold_file() -> Path:
    """Return the path of a file. While it exists, no import of this site stores posts."""
    return Path(current_app.instance_path) / "hold-imports"


@worker_process_init.connect
def install_import_hold(**_kwargs: Any) -> None:
    """Make imports in the worker processes wait while import_hold_file() exists."""
    store = importer.store_posts

    def store_when_released(*args: Any, **kwargs: Any) -> None:
        while import_hold_file().exists():
            time.sleep(0.01)
        store(*args, **kwargs)

    importer.store_posts = store_when_released
