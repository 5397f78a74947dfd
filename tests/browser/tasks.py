"""A task that goes exactly as far as a test lets it."""

from __future__ import annotations

import time
from pathlib import Path

from celery import shared_task

from microblog.taskqueue.celery import JobTask
from microblog.taskqueue.progress import Progress

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
