"""State of the user interface: view, order, filter and selected job, and how keys change it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from microblog.monitoring.watch import terminal
from microblog.monitoring.watch.reader import UNFINISHED, VIEWS, JobQuery
from microblog.monitoring.watch.snapshot import JobLine

CANCEL, RETRY, QUIT = "cancel", "retry", "quit"
LIST, DETAIL, HELP = "list", "detail", "help"

_LONG_AGO = datetime.min.replace(tzinfo=UTC)

SORTS: dict[str, Callable[[JobLine], Any]] = {
    "state": lambda job: (not job.running, not job.unfinished, job.created_at or _LONG_AGO),
    "age": lambda job: job.created_at or _LONG_AGO,
    "done": lambda job: -job.percent,
    "user": lambda job: job.user.lower(),
    "job": lambda job: job.name,
    "queue": lambda job: job.queue,
    "worker": lambda job: (not job.worker, job.worker),
}


@dataclass(frozen=True)
class Command:
    """A key's command for the main loop: CANCEL or RETRY a job, or QUIT."""

    action: str
    job: JobLine | None = None


@dataclass
class UiState:
    """The state of the user interface, changed by keys only. `page` is the number of jobs or lines on the screen."""

    mode: str = LIST
    view: str = UNFINISHED
    sort: str = "state"
    backwards: bool = False
    text: str = ""
    typing: bool = False
    cursor: str | None = None  # the id of the selected job
    top: int = 0  # the index of the first job on the screen
    scroll: int = 0  # the index of the first line on the screen, in the detail and the help view
    page: int = 10
    question: Command | None = None
    _index: int = 0

    def query(self, maybe_without_row: frozenset[str] = frozenset()) -> JobQuery:
        """Return the query of the Task table that this state needs."""
        opened = self.cursor if self.mode == DETAIL else None
        return JobQuery(self.view, self.text, opened, maybe_without_row)

    def arrange(self, jobs: Sequence[JobLine]) -> list[JobLine]:
        """Return the jobs that match the filter, in the selected order, and move the cursor to one of them."""
        words = self.text.lower().split()
        matching = [job for job in jobs if all(word in _text_of(job) for word in words)]
        if self.sort == "state" and self.view != UNFINISHED and not self.backwards:
            arranged = matching  # already newest first
        else:
            arranged = sorted(matching, key=SORTS[self.sort], reverse=self.backwards)
        self._keep_cursor(arranged)
        return arranged

    def press(self, key: str, arranged: Sequence[JobLine]) -> Command | None:
        """Handle `key` and return its command, or None; `arranged` are the jobs on the screen."""
        if self.question is not None:
            return self._answer(key)
        if self.typing:
            self._type(key)
            return None
        job = next((each for each in arranged if each.id == self.cursor), None)
        if key == "q":
            return Command(QUIT)
        if key == "c" and job:
            self.question = Command(CANCEL, job)
        elif key == "r" and job:
            self.question = Command(RETRY, job)
        elif self.mode == LIST:
            self._press_in_list(key, arranged)
        else:
            self._press_in_text(key)
        return None

    def _press_in_list(self, key: str, arranged: Sequence[JobLine]) -> None:
        if key in (terminal.ENTER, terminal.RIGHT) and self.cursor:
            self.mode, self.scroll = DETAIL, 0
        elif key in ("?", "h"):
            self.mode, self.scroll = HELP, 0
        elif key == "s":
            self.sort = _next_of(self.sort, tuple(SORTS))
        elif key == "S":
            self.backwards = not self.backwards
        elif key in (terminal.TAB, "v"):
            self._show(_next_of(self.view, VIEWS))
        elif key == terminal.BACKTAB:
            self._show(_next_of(self.view, VIEWS[::-1]))
        elif key == "/":
            self.typing = True
        elif key == terminal.ESCAPE:
            self.text = ""
        elif (step := self._step(key, len(arranged))) and arranged:
            self._index = min(max(0, self._index + step), len(arranged) - 1)
            self.cursor = arranged[self._index].id
            self._scroll_to_cursor(len(arranged))

    def _press_in_text(self, key: str) -> None:
        if key in (terminal.ESCAPE, terminal.ENTER, terminal.LEFT, terminal.BACKSPACE, "?", "h"):
            self.mode = LIST
        else:
            self.scroll = max(0, self.scroll + self._step(key, 100_000))

    def _step(self, key: str, count: int) -> int:
        return {
            terminal.UP: -1,
            "k": -1,
            terminal.DOWN: 1,
            "j": 1,
            terminal.PAGE_UP: -self.page,
            terminal.PAGE_DOWN: self.page,
            terminal.HOME: -count,
            terminal.END: count,
        }.get(key, 0)

    def _type(self, key: str) -> None:
        if key == terminal.ENTER:
            self.typing = False
        elif key == terminal.ESCAPE:
            self.typing, self.text = False, ""
        elif key == terminal.BACKSPACE:
            self.text = self.text[:-1]
        elif len(key) == 1:
            self.text += key

    def _answer(self, key: str) -> Command | None:
        command, self.question = self.question, None
        return command if key in ("y", "Y") else None

    def _show(self, view: str) -> None:
        self.view, self.cursor, self.top, self._index = view, None, 0, 0

    def _keep_cursor(self, arranged: Sequence[JobLine]) -> None:
        """Keep the cursor on the same job. If that job is no longer listed, move it to the job now in its place."""
        if self.mode == DETAIL:
            return
        ids = [job.id for job in arranged]
        if self.cursor in ids:
            self._index = ids.index(self.cursor)
        else:
            self._index = min(self._index, max(0, len(ids) - 1))
            self.cursor = ids[self._index] if ids else None
        self._scroll_to_cursor(len(ids))

    def _scroll_to_cursor(self, count: int) -> None:
        self.top = min(max(self.top, self._index - self.page + 1), self._index, max(0, count - self.page))


def _text_of(job: JobLine) -> str:
    parts = (job.id, job.name, job.step_name, job.user, job.state, job.queue, job.worker, job.description, job.error)
    return "\n".join(parts).lower()


def _next_of(current: str, options: Sequence[str]) -> str:
    return options[(options.index(current) + 1) % len(options)]
