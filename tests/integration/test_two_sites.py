"""Two sites that share one Redis, even one of its databases, do not notice each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest
from flask import Flask

from config import ConfigError, load_settings
from microblog.accounts.models import User
from microblog.extensions import db
from microblog.taskqueue import states
from microblog.taskqueue.launch import launch
from microblog.taskqueue.models import Task
from tests.support import app_factory, tasks
from tests.support.factories import state_of
from tests.support.servers import RedisServer, Worker, wait_for
from tests.support.smtp import SmtpServer


class SharingSite(NamedTuple):
    """A site with its own database, and a worker."""

    sender: str
    environment: dict[str, str]
    worker: Worker


@pytest.fixture(scope="module")
def redis_of_sites() -> Iterator[RedisServer]:
    with RedisServer().running() as server:
        yield server


@pytest.fixture
def sites(
    base_environment: dict[str, str],
    redis_of_sites: RedisServer,
    smtp_server: SmtpServer,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> Iterator[list[SharingSite]]:
    """Two sites with the same URL of Redis and the default prefix."""
    redis_of_sites.empty()
    smtp_server.reset()
    with ExitStack() as stack:
        made = []
        for name in ("first", "second"):
            folder = tmp_path / name
            folder.mkdir()
            environment = base_environment | {
                "REDIS_URL": redis_of_sites.url,
                "DATABASE_URL": app_factory.fresh_database(folder, request),
                "INSTANCE_PATH": str(folder),
                "MAIL_DEFAULT_SENDER": f"{name}@example.com",
            }
            del environment["REDIS_PREFIX"]
            worker = Worker(environment, log=folder / "worker.log")
            stack.callback(worker.stop)
            made.append(SharingSite(f"{name}@example.com", environment, worker))
        yield made


def launch_exports(app: Flask, count: int) -> list[str]:
    users = [User(username=f"u{n}", email=f"u{n}@example.com", password_hash="") for n in range(count)]
    db.session.add_all(users)
    db.session.flush()
    launched = [user.launch_task("export_posts", "Export").id for user in users]
    db.session.commit()
    return launched


@pytest.mark.exhaustive
@pytest.mark.parametrize("exports", [2, 20])
def test_each_site_runs_and_mails_its_own_exports(
    sites: list[SharingSite], redis_of_sites: RedisServer, smtp_server: SmtpServer, exports: int
) -> None:
    prefixes = []
    for site in sites:
        with app_factory.application(site.environment) as app:
            launch_exports(app, exports)
            assert app.extensions["celery"].control.ping(timeout=1) == [{site.worker.name: {"ok": "pong"}}]
            prefixes.append(app.config["REDIS_PREFIX"])
    wait_for(lambda: len(smtp_server.messages) >= 2 * exports, what="all archives are mailed")

    for site in sites:
        with app_factory.application(site.environment):
            wait_for(lambda: ended_tasks() == {(states.SUCCESS, site.worker.name): 2 * exports})  # noqa: B023
    mails = Counter((message["From"], message["To"]) for message in smtp_server.messages)
    assert mails == {(site.sender, f"u{n}@example.com"): 1 for site in sites for n in range(exports)}
    assert len(set(prefixes)) == 2
    keys = list(redis_of_sites.client.scan_iter(count=1000))
    assert [key for key in keys if not str(key).startswith(tuple(prefixes))] == []


def ended_tasks() -> Counter[tuple[str, str | None]]:
    """Return the number of tasks by state and worker."""
    db.session.rollback()
    return Counter((task.state, task.worker) for task in db.session.query(Task))


@pytest.mark.parametrize("database", ["sqlite"])
def test_launched_message_without_row_is_not_run(
    app: Flask, worker: Worker, redis_server: RedisServer, runs_file: Path
) -> None:
    signature = launch(tasks.record.s(str(runs_file))).signature
    db.session.rollback()

    app.extensions["celery"].signature(signature).apply_async()
    other = launch(tasks.record.s(str(runs_file)))
    db.session.commit()

    wait_for(lambda: not redis_server.in_flight(), what="both messages are acknowledged")
    assert runs_file.read_text() == "ran\n"
    assert state_of(other.id) == states.SUCCESS
    assert "was launched, but has no row" in worker.text()
    assert not app.extensions["celery"].backend.has_result(signature["options"]["task_id"])


def prefix_with(monkeypatch: pytest.MonkeyPatch, **variables: str) -> str:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return str(load_settings()["REDIS_PREFIX"])


def test_default_prefix_names_database(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("REDIS_PREFIX", raising=False)
    monkeypatch.setenv("MICROBLOG_ENV", "testing")
    monkeypatch.setenv("INSTANCE_PATH", str(tmp_path))
    same = [
        "postgresql://one:password@db.example.com/microblog",
        "postgres://two@db.example.com:5432/microblog?sslmode=require",
        "postgresql+psycopg://db.example.com/microblog",
    ]
    others = [
        "postgresql://one@db.example.com/other",
        "postgresql://one@db.example.com:6432/microblog",
        "postgresql://one@other.example.com/microblog",
        "postgresql:///microblog?host=/run/postgresql",
        f"sqlite:///{tmp_path}/one.db",
        f"sqlite:///{tmp_path}/two.db",
    ]

    prefix = prefix_with(monkeypatch, DATABASE_URL=same[0])

    assert {prefix_with(monkeypatch, DATABASE_URL=url) for url in same} == {prefix}
    assert len({prefix} | {prefix_with(monkeypatch, DATABASE_URL=url) for url in others}) == 1 + len(others)
    assert prefix_with(monkeypatch, DATABASE_URL="sqlite:///one.db") == prefix_with(
        monkeypatch, DATABASE_URL=f"sqlite:///{tmp_path}/one.db"
    )
    assert "password" not in prefix


@pytest.mark.parametrize("value", ["", "a*", "with space", "{tag}", "x" * 101])
def test_unusable_prefix_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    with pytest.raises(ConfigError, match="REDIS_PREFIX"):
        prefix_with(monkeypatch, MICROBLOG_ENV="testing", REDIS_PREFIX=value)
