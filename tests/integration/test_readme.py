"""What the README says can be typed can be typed, and works."""

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
from celery import shared_task
from flask import Flask
from flask_babel import lazy_gettext

from microblog.accounts.models import User
from microblog.exports.archive import count_posts, read_posts
from microblog.extensions import db
from microblog.posts.models import Post
from microblog.taskqueue.interface import Progress
from microblog.taskqueue.worker import JobTask
from tests.integration.test_run import House
from tests.support.programs import ROOT
from tests.support.servers import PATIENCE, free_port

README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
# The options of `celery inspect`: it waits for the one worker's answer as long as that takes, and no longer.
PATIENTLY = {"CELERY_INSPECT_DESTINATION": f"celery@{gethostname()}", "CELERY_INSPECT_TIMEOUT": str(PATIENCE)}


def blocks(language: str) -> list[str]:
    """The README's blocks of code in a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands(beginning: str) -> str:
    """The block of commands that begins with `beginning`."""
    [block] = [block for block in blocks("sh") if block.startswith(beginning)]
    return block


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A running `make run`, without the make."""
    house = House(tmp_path_factory.mktemp("readme") / "instance", free_port())
    house.wait_until_ready()
    yield house
    house.end()


def type_in(house: House, text: str) -> str:
    """Run commands in a second terminal beside the house; returns what they print."""
    text = text.replace("http://127.0.0.1:8000", house.url).replace(".venv/bin/", f"{Path(sys.executable).parent}/")
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")}
    shell = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        cwd=ROOT,
        env=kept | PATIENTLY | {"INSTANCE_PATH": str(house.instance)},
        capture_output=True,
        text=True,
        timeout=3 * PATIENCE,
    )
    assert shell.returncode == 0, shell.stdout + shell.stderr
    return shell.stdout


@pytest.mark.exhaustive
def test_the_program_of_a_user(house: House) -> None:
    started, listed = map(json.loads, type_in(house, commands("TOKEN=")).strip().splitlines())

    assert started["name"] == "export_posts"
    assert [job["id"] for job in listed["items"]] == [started["id"]]


@pytest.mark.exhaustive
def test_the_commands_of_an_operator(house: House) -> None:
    printed = type_in(house, commands(".venv/bin/flask tasks list"))

    assert "cancel" in printed
    assert "->" in printed
    assert '"total"' in printed


def test_the_files_it_names_are_there() -> None:
    for name in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / name).exists(), name


def test_the_targets_it_names_are_in_the_makefile() -> None:
    path = {"PATH": os.environ["PATH"]}  # not the options of a `make` that runs the tests
    known = subprocess.run(["make", "help"], cwd=ROOT, env=path, capture_output=True, text=True, check=True).stdout

    for target in re.findall(r"^make ([a-z-]+)|`make ([a-z-]+)", README + CONTRIBUTING, re.MULTILINE):
        assert f"make {''.join(target)} " in known


@pytest.fixture(scope="module")
def new_kind() -> dict[str, Any]:
    """What the README's new kind of job defines: once, since a task's name is registered once in a process."""
    names: dict[str, Any] = {
        "__name__": "readme",
        "shared_task": shared_task,
        "_l": lazy_gettext,
        "JobTask": JobTask,
        "Progress": Progress,
        "count_posts": count_posts,
        "read_posts": read_posts,
    }
    exec(blocks("python")[0], names)
    return names


def test_the_new_kind_of_job_works_as_written(
    new_kind: dict[str, Any], app: Flask, make_user: Callable[..., User]
) -> None:
    user = make_user()
    db.session.add_all(Post(body="three little words", user_id=user.id) for _ in range(4))
    db.session.commit()

    assert new_kind["count_words"].apply(args=(user.id,)).get() == {"words": 12}
    exec(blocks("python")[1], {"current_user": user, "db": db, "_": str})
    assert user.get_task_in_progress("count_words") is not None
