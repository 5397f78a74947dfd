"""The commands and the code in the README work as written."""

from __future__ import annotations

import json
import mailbox
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from socket import gethostname
from textwrap import indent
from typing import Any

import pytest
from flask import Flask

from microblog.accounts.models import User
from microblog.extensions import db
from microblog.posts.models import Post
from tests.integration.test_run import DevelopmentServer
from tests.support.programs import ROOT
from tests.support.servers import TIMEOUT, free_port, wait_for

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


def run_in(folder: Path, environment: Mapping[str, str], text: str) -> str:
    """Run shell commands in a folder; return their output."""
    shell = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text.replace(".venv/bin/", f"{Path(sys.executable).parent}/")],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=3 * TIMEOUT,
    )
    assert shell.returncode == 0, shell.stdout + shell.stderr
    return shell.stdout


def run_commands(server: DevelopmentServer, text: str) -> str:
    """Run commands in a second terminal, next to the running server; return their output."""
    environment = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")}
    environment |= INSPECT_OPTIONS | {"INSTANCE_PATH": str(server.instance)}
    return run_in(ROOT, environment, text.replace("http://127.0.0.1:8000", server.url))


@pytest.mark.exhaustive
def test_api_example_works(server: DevelopmentServer) -> None:
    started, listed = map(json.loads, run_commands(server, commands("TOKEN=")).strip().splitlines())

    assert started["name"] == "export_posts"
    assert listed["items"][0]["id"] == started["id"]


@pytest.mark.exhaustive
def test_operator_commands_work(server: DevelopmentServer) -> None:
    printed = run_commands(server, commands(".venv/bin/flask tasks list"))

    assert "cancel" in printed
    assert "->" in printed
    assert '"total"' in printed


@pytest.mark.exhaustive
def test_demonstration_of_killed_worker_works(server: DevelopmentServer) -> None:
    [more] = re.findall(r"`(\.venv/bin/flask demo --more \d+)`", README)
    kill = commands("kill -9").replace("instance/", f"{server.instance}/")
    run_commands(server, more)
    wait_for(lambda: no_job_is_unfinished(server), what="the exports of other tests are done")
    mails = mailbox.Maildir(server.instance / "mail")
    mails_before = len(mails)
    started, _listed = map(json.loads, run_commands(server, commands("TOKEN=")).strip().splitlines())

    wait_for(lambda: row(server, started["id"])[1], what="the export runs")
    run_commands(server, kill)

    wait_for(lambda: no_job_is_unfinished(server), what="the export and the mail are done")
    assert row(server, started["id"])[2] == 2
    assert "worker      ended (signal SIGKILL); it is started again" in server.output.read_text()
    assert len(mails) == mails_before + 1


def row(server: DevelopmentServer, task_id: str) -> tuple[str, int, int]:
    """Return the state, the progress and the number of attempts of a task."""
    [(state, current, attempts)] = query(server, "SELECT state, current, attempts FROM task WHERE id = ?", task_id)
    return state, current, attempts


def no_job_is_unfinished(server: DevelopmentServer) -> bool:
    return not query(server, "SELECT id FROM task WHERE finished_at IS NULL")


def query(server: DevelopmentServer, statement: str, *values: str) -> list[Any]:
    with closing(sqlite3.connect(server.instance / "microblog.db", timeout=TIMEOUT)) as database:
        return database.execute(statement, values).fetchall()


def test_linked_files_exist() -> None:
    for name in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / name).exists(), name


def test_make_targets_exist() -> None:
    path = {"PATH": os.environ["PATH"]}  # without the options of a `make` that runs the tests
    make_help = subprocess.run(["make", "help"], cwd=ROOT, env=path, capture_output=True, text=True, check=True).stdout

    for target in re.findall(r"^make ([a-z-]+)|`make ([a-z-]+)", README + CONTRIBUTING, re.MULTILINE):
        assert f"make {''.join(target)} " in make_help


@pytest.fixture
def copied_tree(tmp_path: Path) -> Path:
    """A copy of the source with the README's new task in the file that the README names."""
    tree = tmp_path / "tree"
    for name in ("microblog", "tests"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    modules = ("celery_app.py", "config.py", "database_settings.py", "redis_settings.py")
    for name in (".flaskenv", "Makefile", "babel.cfg", "pyproject.toml", *modules):
        shutil.copy(ROOT / name, tree)
    [path] = re.findall(r"this one is `(microblog/\w+/tasks.py)`", README)
    (tree / path).parent.mkdir()
    (tree / path).with_name("__init__.py").touch()
    (tree / path).write_text(blocks("python")[0])
    return tree


@pytest.mark.exhaustive
def test_new_task_example_works(
    copied_tree: Path, app: Flask, environment: dict[str, str], make_user: Callable[..., User]
) -> None:
    user = make_user()
    db.session.add_all(Post(body="three little words", user_id=user.id) for _ in range(4))
    db.session.commit()
    (copied_tree / "launch.py").write_text(
        "from celery_app import app\n"
        "from microblog.extensions import db\n"
        "from microblog.models import User\n"
        "with app.flask_app.app_context():\n"
        f"    current_user = User.with_id({user.id})\n" + indent(blocks("python")[1], "    ") + "\n"
        f"    print(app.tasks['count_words'].apply(args=[{user.id}]).get())\n"
    )

    run_by_operator = commands(".venv/bin/flask tasks run").replace("--arg 1", f"--arg {user.id}")
    printed = run_in(copied_tree, environment, run_by_operator)
    result = run_in(copied_tree, environment, ".venv/bin/python launch.py")

    assert "launched count_words." in printed
    assert result.strip() == "{'words': 12}"
    task = user.get_task_in_progress("count_words")
    assert task is not None
    assert task.description == "Counting your words"


@pytest.mark.exhaustive
def test_new_task_example_passes_tests_of_source(copied_tree: Path, base_environment: dict[str, str]) -> None:
    files = "tests/unit/test_architecture.py tests/unit/test_translations.py"

    run_in(copied_tree, base_environment, f".venv/bin/python -m pytest -n 0 -p no:cacheprovider {files}")
