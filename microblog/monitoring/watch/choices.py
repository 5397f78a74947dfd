"""State of the user interface: view, order, filter and selected job, and what each key changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from microblog.monitoring.watch import keyboard
from microblog.monitoring.watch.reader import UNFINISHED, VIEWS, Wanted
from microblog.monitoring.watch.snapshot import JobLine
from microblog.taskqueue import states

CANCEL, RETRY, QUIT = "cancel", "retry", "quit"
LIST, DETAIL, HELP = "list", "detail", "help"

_LONG_AGO = datetime.min.replace(tzinfo=UTC)
_BY_STATE = {state: number for number, state in enumerate((*states.RUNNING, states.RETRY, *states.ALL))}

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
    """A command that a key gives to the main loop: CANCEL or RETRY a job, or QUIT."""

    what: str
    job: JobLine | None = None


@dataclass
class Choices:
    """Changed by keys alone. `page` is how many jobs the screen shows at once, and how many lines of one."""

    mode: str = LIST
    view: str = UNFINISHED
    sort: str = "state"
    backwards: bool = False
    text: str = ""
    typing: bool = False
    cursor: str | None = None  # the id of the job under it
    top: int = 0  # the number of the first job on the screen
    scroll: int = 0  # the number of the first line of an open job on the screen
    page: int = 10
    question: Command | None = None
    _index: int = 0

    def wanted(self, maybe_without_row: frozenset[str] = frozenset()) -> Wanted:
        """The query of the Task table that this state needs."""
        opened = self.cursor if self.mode == DETAIL else None
        return Wanted(self.view, self.text, opened, maybe_without_row)

    def arrange(self, jobs: Sequence[JobLine]) -> list[JobLine]:
        """The jobs that pass the filter, in the order chosen; brings the cursor to one of them."""
        words = self.text.lower().split()
        passing = [job for job in jobs if all(word in _text_of(job) for word in words)]
        if self.sort == "state" and self.view != UNFINISHED and not self.backwards:
            arranged = passing  # newest first, as they come
        else:
            arranged = sorted(passing, key=SORTS[self.sort], reverse=self.backwards)
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
            self._press_elsewhere(key)
        return None

    def _press_in_list(self, key: str, arranged: Sequence[JobLine]) -> None:
        if key in (keyboard.ENTER, keyboard.RIGHT) and self.cursor:
            self.mode, self.scroll = DETAIL, 0
        elif key in ("?", "h"):
            self.mode, self.scroll = HELP, 0
        elif key == "s":
            self.sort = _after(self.sort, tuple(SORTS))
        elif key == "S":
            self.backwards = not self.backwards
        elif key in (keyboard.TAB, "v"):
            self._show(_after(self.view, VIEWS))
        elif key == keyboard.BACKTAB:
            self._show(_after(self.view, VIEWS[::-1]))
        elif key == "/":
            self.typing = True
        elif key == keyboard.ESCAPE:
            self.text = ""
        elif (step := self._step(key, len(arranged))) and arranged:
            self._index = min(max(0, self._index + step), len(arranged) - 1)
            self.cursor = arranged[self._index].id
            self._keep_in_sight(len(arranged))

    def _press_elsewhere(self, key: str) -> None:
        if key in (keyboard.ESCAPE, keyboard.ENTER, keyboard.LEFT, keyboard.BACKSPACE, "?", "h"):
            self.mode = LIST
        else:
            self.scroll = max(0, self.scroll + self._step(key, 100_000))

    def _step(self, key: str, everything: int) -> int:
        return {
            keyboard.UP: -1,
            "k": -1,
            keyboard.DOWN: 1,
            "j": 1,
            keyboard.PAGE_UP: -self.page,
            keyboard.PAGE_DOWN: self.page,
            keyboard.HOME: -everything,
            keyboard.END: everything,
        }.get(key, 0)

    def _type(self, key: str) -> None:
        if key == keyboard.ENTER:
            self.typing = False
        elif key == keyboard.ESCAPE:
            self.typing, self.text = False, ""
        elif key == keyboard.BACKSPACE:
            self.text = self.text[:-1]
        elif len(key) == 1:
            self.text += key

    def _answer(self, key: str) -> Command | None:
        asked, self.question = self.question, None
        return asked if key in ("y", "Y") else None

    def _show(self, view: str) -> None:
        self.view, self.cursor, self.top, self._index = view, None, 0, 0

    def _keep_cursor(self, arranged: Sequence[JobLine]) -> None:
        """On the same job wherever that has gone; if it has gone for good, on the one that took its place."""
        if self.mode == DETAIL:
            return
        ids = [job.id for job in arranged]
        if self.cursor in ids:
            self._index = ids.index(self.cursor)
        else:
            self._index = min(self._index, max(0, len(ids) - 1))
            self.cursor = ids[self._index] if ids else None
        self._keep_in_sight(len(ids))

    def _keep_in_sight(self, count: int) -> None:
        self.top = min(max(self.top, self._index - self.page + 1), self._index, max(0, count - self.page))


def _text_of(job: JobLine) -> str:
    parts = (job.id, job.name, job.step_name, job.user, job.state, job.queue, job.worker, job.description, job.error)
    return "\n".join(parts).lower()


def _after(chosen: str, choices: Sequence[str]) -> str:
    return choices[(choices.index(chosen) + 1) % len(choices)]
