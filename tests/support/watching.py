"""What stands on the screen of ``flask tasks watch``."""

from __future__ import annotations

import re
import shlex

from tests.support.console import flask_tasks, from_nothing
from tests.support.services import PATIENCE, wait_for
from tests.support.tmux import Tmux

WATCH = shlex.join(from_nothing(flask_tasks("watch")))


def shows(terminal: Tmux, text: str, timeout: float = PATIENCE) -> str:
    """The line with `text`, once it is on the screen."""
    try:
        return wait_for(lambda: terminal.line_with(text), timeout)
    except AssertionError:
        raise AssertionError(f"{text!r} does not come to the screen:\n{terminal.text()}") from None


def no_longer_shows(terminal: Tmux, text: str) -> None:
    wait_for(lambda: not terminal.line_with(text), what=f"{text!r} gone from the screen")


def exit_code(terminal: Tmux) -> int:
    """What the shell says of a command behind which was typed: ; echo "exit code: $?"."""
    found = wait_for(lambda: re.search(r"^exit code: (\d+)$", terminal.text(), re.M), what="an exit code")
    return int(found[1])
