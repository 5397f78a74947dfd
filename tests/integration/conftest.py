"""Fixtures of the integration tests: users, the browsers of two of them, a web server and a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from microblog.accounts.models import User
from microblog.database import AutocommitExecutor
from microblog.development.process_manager import ManagedProcess
from microblog.development.servers import free_port, web_answers
from microblog.extensions import db
from tests.support import external
from tests.support.api import Caller, caller_for
from tests.support.cluster import Cluster, running_cluster
from tests.support.databases import Statement, recorded_statements
from tests.support.programs import ScriptProcess
from tests.support.servers import STOP_TIMEOUT, TIMEOUT
from tests.support.terminal import Tmux


@pytest.fixture
def susan(make_user: Callable[..., User]) -> User:
    return make_user("susan")


@pytest.fixture
def miguel(make_user: Callable[..., User]) -> User:
    return make_user("miguel")


@pytest.fixture
def ben(make_user: Callable[..., User]) -> User:
    return make_user("ben")


@pytest.fixture
def executor(app: Flask) -> AutocommitExecutor:
    """The executor of the statements of transitions.py."""
    executor: AutocommitExecutor = app.extensions["celery"].executor
    return executor


@pytest.fixture
def backend(app: Flask) -> Any:
    """The result backend."""
    return app.extensions["celery"].backend


@pytest.fixture
def browser(signed_in: Callable[..., FlaskClient], susan: User) -> FlaskClient:
    """A browser in which Susan is signed in."""
    return signed_in(susan)


@pytest.fixture
def caller(app: Flask, susan: User) -> Caller:
    """A client that calls the API as Susan."""
    return caller_for(app, susan)


@pytest.fixture
def operator(make_user: Callable[..., User], signed_in: Callable[..., FlaskClient]) -> FlaskClient:
    """A browser in which an operator is signed in."""
    user = make_user("olga")
    user.is_operator = True
    db.session.commit()
    return signed_in(user)


@pytest.fixture
def start_web(tmp_path: Path) -> Iterator[Callable[[dict[str, str]], int]]:
    """A function that starts gunicorn in an environment and returns its port."""
    started: list[ManagedProcess] = []

    def start(environment: dict[str, str]) -> int:
        port, log = free_port(), tmp_path / f"web-{len(started)}.log"
        command = [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "microblog:create_app()"]
        process = ManagedProcess(command, environment | {"PORT": str(port)}, stdout=log)
        started.append(process)
        process.wait_until(lambda: web_answers(port, "/healthz", timeout=10), "gunicorn", TIMEOUT)
        return port

    yield start
    for process in started:
        process.stop(STOP_TIMEOUT)


@pytest.fixture
def terminal(environment: dict[str, str]) -> Iterator[Tmux]:
    """A shell in a terminal, 80 columns by 24 lines."""
    external.TMUX.require()
    terminal = Tmux(environment)
    yield terminal
    terminal.stop()


@pytest.fixture
def start_program(environment: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., ScriptProcess]]:
    """A function that starts a program of Celery, with the log ``NAME.log``, and does not wait for it."""
    started: list[ScriptProcess] = []

    def start_one(*arguments: str, **settings: str) -> ScriptProcess:
        log = tmp_path / f"{arguments[0]}.log"
        intervals = {"RECONCILE_INTERVAL": "1", "SWEEP_INTERVAL": "1"}
        command = ["celery", "-A", "tests.support.worker_app", *arguments]
        started.append(ScriptProcess(command, environment | intervals | settings, stdout=log))
        return started[-1]

    yield start_one
    for program in started:
        program.kill()


@pytest.fixture
def release_file(tmp_path: Path) -> Iterator[Path]:
    """A file whose creation lets waiting tasks finish. It is created when the test ends, if not before."""
    path = tmp_path / "release"
    yield path
    path.touch()


@pytest.fixture
def runs_file(tmp_path: Path) -> Path:
    """A file to which tasks append a line whenever they run."""
    return tmp_path / "runs"


@pytest.fixture
def statements() -> Iterator[list[Statement]]:
    """The SQL statements that this process executes during the test."""
    with recorded_statements() as statements:
        yield statements


@pytest.fixture(scope="module")
def cluster(
    base_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Cluster]:
    """Workers that the tests of a module share, none at first."""
    with running_cluster(base_environment, tmp_path_factory.mktemp("cluster"), request) as cluster:
        yield cluster
