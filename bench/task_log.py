"""A log file to which tasks write when they begin and end, independently of the states that Celery stores."""

from __future__ import annotations

import os
import time
from pathlib import Path


class TaskLog:
    """The log at `path` of all tasks that were given this path, in any process."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def work(self, task_id: str, seconds: float) -> None:
        """Run as the body of a task: log the begin, sleep for `seconds`, log the end."""
        self._write("begun", task_id)
        time.sleep(seconds)
        self._write("done", task_id)

    def begun(self, task_id: str) -> int:
        """Return how often the task began."""
        return len(self._read("begun", task_id))

    def done(self, task_id: str) -> int:
        """Return how often the task reached its end."""
        return len(self._read("done", task_id))

    def process(self, task_id: str) -> int:
        """Return the id of the process in which the task began last. Raises LookupError if it has not begun."""
        return self._read("begun", task_id)[-1]

    def _write(self, event: str, task_id: str) -> None:
        with self.path.open("a") as file:
            file.write(f"{event} {task_id} {os.getpid()}\n")

    def _read(self, event: str, task_id: str) -> list[int]:
        """Return the ids of the processes that logged the event, in order."""
        if not self.path.exists():
            return []
        lines = (line.split() for line in self.path.read_text().splitlines())
        return [int(process) for logged, of_task, process in lines if (logged, of_task) == (event, task_id)]
