"""`make run`: an error at start is one sentence, and a second terminal gets the environment of the running services."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from dotenv import dotenv_values

from microblog.development.environment import compose, share
from tests.support.programs import ROOT
from tests.support.servers import TIMEOUT, free_port


def run(instance: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "microblog.development.runner"],
        cwd=ROOT,
        env=os.environ | {"INSTANCE_PATH": str(instance)} | environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )


@pytest.mark.exhaustive
def test_port_in_use_is_reported_before_start(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        outcome = run(tmp_path / "instance", PORT=str(port))

    assert outcome.returncode != 0
    assert outcome.stdout == ""
    assert outcome.stderr.count("\n") == 1
    assert f"Port {port} of 127.0.0.1 cannot be used" in outcome.stderr
    assert not (tmp_path / "instance").exists()


@pytest.mark.parametrize("port", ["abc", "65536", "٣"])
@pytest.mark.exhaustive
def test_invalid_port_is_refused(tmp_path: Path, port: str) -> None:
    outcome = run(tmp_path / "instance", PORT=port)

    assert outcome.returncode != 0
    assert outcome.stderr.startswith("PORT: ")
    assert "Traceback" not in outcome.stderr


@pytest.mark.exhaustive
def test_second_run_in_same_folder_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "run.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        outcome = run(tmp_path, PORT=str(free_port()))

    assert outcome.returncode != 0
    assert outcome.stderr == f"Another `make run` is running in {tmp_path}.\n"


@pytest.mark.parametrize("name", ["DATABASE_URL", pytest.param("REDIS_URL", marks=pytest.mark.exhaustive)])
def test_invalid_setting_is_reported_before_start(tmp_path: Path, name: str) -> None:
    outcome = run(tmp_path, PORT=str(free_port()), **{name: "nonsense"})

    assert outcome.returncode != 0
    assert outcome.stderr.startswith(f"{name}: ")
    assert not (tmp_path / "mail").exists(), "no program has started"


@pytest.mark.parametrize(
    "database_url",
    ["postgresql://me:p%23w@host/db?sslmode=require", 'sqlite:////a folder/it\'s #1\\2 "$HOME".db'],
)
def test_share_writes_environment_for_second_terminal(tmp_path: Path, database_url: str) -> None:
    given = {"DATABASE_URL": database_url, "REDIS_PREFIX": "one:", "PATH": "/bin", "EDITOR": "ed"}
    environment = compose(given, port=8001, redis_url="redis://127.0.0.1:4000/0", mail_port=4001)

    share(environment, tmp_path / "dev.env")

    assert dotenv_values(tmp_path / "dev.env") == {
        "MICROBLOG_ENV": "development",
        "REDIS_URL": "redis://127.0.0.1:4000/0",
        "REDIS_PREFIX": "one:",
        "DATABASE_URL": database_url,
        "MAIL_SERVER": "127.0.0.1",
        "MAIL_PORT": "4001",
        "PUBLIC_URL": "http://127.0.0.1:8001",
    }
    assert (tmp_path / "dev.env").stat().st_mode & 0o077 == 0


def test_given_setting_has_precedence_over_default_of_development() -> None:
    environment = compose({"TASK_LEASE": "600"}, port=8000, redis_url="redis://127.0.0.1/0", mail_port=2525)

    assert environment["TASK_LEASE"] == "600"
    assert float(environment["RECONCILE_INTERVAL"]) < 5


def test_empty_variable_counts_as_unset() -> None:
    environment = compose({"DATABASE_URL": ""}, port=8000, redis_url="redis://127.0.0.1/0", mail_port=2525)

    assert "DATABASE_URL" not in environment
