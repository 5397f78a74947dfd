"""The lines of `make run`: coloured on a terminal only."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from microblog.development import environment
from microblog.development.environment import compose
from tests.support.programs import ROOT

SCRIPT = """
from microblog.development.console import BAD, Console
console = Console(["web", "worker"])
console.say("GET / 200", "web")
console.say("ended", "worker", BAD)
console.close(60)
"""


def printed(output: int, **variables: str) -> None:
    """Print two lines to the file descriptor `output`."""
    settings = {"PATH": os.environ["PATH"], **variables}
    subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, env=settings, stdout=output, check=True)


def on_terminal(**variables: str) -> str:
    ours, theirs = os.openpty()
    try:
        printed(theirs, **variables)
        return os.read(ours, 10_000).decode()
    finally:
        os.close(ours)
        os.close(theirs)


def in_pipe(**variables: str) -> str:
    reader, writer = os.pipe()
    printed(writer, **variables)
    os.close(writer)
    with open(reader) as lines:
        return lines.read()


def test_line_has_time_and_program() -> None:
    lines = in_pipe().splitlines()

    assert [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in lines] == ["web     GET / 200", "worker  ended"]


def test_colours_on_terminal_only() -> None:
    coloured = on_terminal()

    assert len(set(re.findall(r"\033\[[\d;]+m", coloured)) - {"\033[0m"}) == 3
    for plain in (in_pipe(), in_pipe(FORCE_COLOR="1"), on_terminal(NO_COLOR="1")):
        assert "\033" not in plain
        assert plain.count("worker  ended") == 1


@pytest.mark.parametrize(
    ("wanted", "name", "other"), [(True, "FORCE_COLOR", "NO_COLOR"), (False, "NO_COLOR", "FORCE_COLOR")]
)
def test_programs_are_told_whether_to_use_colours(
    monkeypatch: pytest.MonkeyPatch, wanted: bool, name: str, other: str
) -> None:
    monkeypatch.setattr(environment, "colours_wanted", lambda: wanted)

    variables = compose({}, port=8001, redis_url="redis://127.0.0.1:4000/0", mail_port=4001)

    assert variables[name] == "1"
    assert other not in variables
