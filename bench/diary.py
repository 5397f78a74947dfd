"""A file in which tasks note what they do: what happened, whatever anybody's states say of it."""

from __future__ import annotations

import os
import time
from pathlib import Path


class Diary:
    """The notes of all tasks that were given `path`, by whichever processes ran them."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def work(self, task_id: str, seconds: float) -> None:
        """What a task does that works for some seconds: it notes that it began, and that it was done."""
        self._note("begun", task_id)
        time.sleep(seconds)
        self._note("done", task_id)

    def begun(self, task_id: str) -> int:
        """How often the task began."""
        return len(self._notes("begun", task_id))

    def done(self, task_id: str) -> int:
        """How often the task was done to its end."""
        return len(self._notes("done", task_id))

    def process(self, task_id: str) -> int:
        """The process in which the task began last. Raises LookupError if it has yet to begin."""
        return self._notes("begun", task_id)[-1]

    def _note(self, what: str, task_id: str) -> None:
        with self.path.open("a") as file:
            file.write(f"{what} {task_id} {os.getpid()}\n")

    def _notes(self, what: str, task_id: str) -> list[int]:
        """The processes that noted it, in order."""
        if not self.path.exists():
            return []
        notes = (line.split() for line in self.path.read_text().splitlines())
        return [int(process) for noted, of_task, process in notes if (noted, of_task) == (what, task_id)]
