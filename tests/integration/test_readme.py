"""The commands and the code in the README work as written."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from socket import gethostname
from typing import Any

import pytest
from flask import Flask

from microblog.accounts.models import User
from microblog.extensions import db
from microblog.posts.models import Post
from tests.integration.test_run import DevelopmentServer
from tests.support.programs import ROOT
from tests.support.servers import TIMEOUT, free_port

README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
# The options of `celery inspect`: it waits up to TIMEOUT for the one worker, and returns once that has answered.
INSPECT_OPTIONS = {"CELERY_INSPECT_DESTINATION": f"celery@{gethostname()}", "CELERY_INSPECT_TIMEOUT": str(TIMEOUT)}


def blocks(language: str) -> list[str]:
    """Return the README's code blocks in a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands(beginning: str) -> str:
    """Return the block of shell commands that begins with `beginning`."""
    [block] = [block for block in blocks("sh") if block.startswith(beginning)]
    return block


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevelopmentServer]:
    """The development environment that ``make run`` starts, started without make."""
    server = DevelopmentServer(tmp_path_factory.mktemp("readme") / "instance", free_port())
    server.wait_until_ready()
    yield server
    server.end()


def run_commands(server: DevelopmentServer, text: str) -> str:
    """Run commands in a second terminal, next to the running server; return their output."""
    text = text.replace("http://127.0.0.1:8000", server.url).replace(".venv/bin/", f"{Path(sys.executable).parent}/")
    environment = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")}
    shell = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        cwd=ROOT,
        env=environment | INSPECT_OPTIONS | {"INSTANCE_PATH": str(server.instance)},
        capture_output=True,
        text=True,
        timeout=3 * TIMEOUT,
    )
    assert shell.returncode == 0, shell.stdout + shell.stderr
    return shell.stdout


@pytest.mark.exhaustive
def test_api_example_works(server: DevelopmentServer) -> None:
    started, listed = map(json.loads, run_commands(server, commands("TOKEN=")).strip().splitlines())

    assert started["name"] == "export_posts"
    assert [job["id"] for job in listed["items"]] == [started["id"]]


@pytest.mark.exhaustive
def test_operator_commands_work(server: DevelopmentServer) -> None:
    printed = run_commands(server, commands(".venv/bin/flask tasks list"))

    assert "cancel" in printed
    assert "->" in printed
    assert '"total"' in printed


def test_linked_files_exist() -> None:
    for name in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / name).exists(), name


def test_make_targets_exist() -> None:
    path = {"PATH": os.environ["PATH"]}  # without the options of a `make` that runs the tests
    make_help = subprocess.run(["make", "help"], cwd=ROOT, env=path, capture_output=True, text=True, check=True).stdout

    for target in re.findall(r"^make ([a-z-]+)|`make ([a-z-]+)", README + CONTRIBUTING, re.MULTILINE):
        assert f"make {''.join(target)} " in make_help


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    """The names that the README's example of a new task defines.

    It is executed once, since a task name can be registered only once in a process.
    """
    names: dict[str, Any] = {"__name__": "readme"}
    exec(blocks("python")[0], names)
    return names


def test_new_task_example_works(example: dict[str, Any], app: Flask, make_user: Callable[..., User]) -> None:
    user = make_user()
    db.session.add_all(Post(body="three little words", user_id=user.id) for _ in range(4))
    db.session.commit()

    assert example["count_words"].apply(args=(user.id,)).get() == {"words": 12}
    exec(blocks("python")[1], {"current_user": user, "db": db, "_": str})
    assert user.get_task_in_progress("count_words") is not None
